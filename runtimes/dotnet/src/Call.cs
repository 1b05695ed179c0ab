using System;
using System.Buffers;
using System.Buffers.Binary;
using System.Collections.Generic;
using System.IO;
using System.Net;
using System.Text;
using System.Text.Json;
using System.Threading;

namespace Brasa
{
    /// <summary>One call: its request, its log, its answer.</summary>
    sealed class Call
    {
        const int Shown = 8192; // of an answer that is too long
        const string Invalid = "the action did not return a dictionary or array, so its response is not valid: ";

        static readonly byte[] Good = Encoding.ASCII.GetBytes("{\"status\":200,\"headers\":{\"Content-Type\":[\"application/json\"]}}");
        static readonly byte[] Failed = Encoding.ASCII.GetBytes("{\"status\":502,\"headers\":{\"Content-Type\":[\"application/json\"]}}");
        static readonly UTF8Encoding Strict = new UTF8Encoding(false, true);

        internal readonly LineLog Log;
        internal volatile bool Ended;

        readonly Link link;
        readonly int stream;
        readonly byte[] meta;
        readonly MemoryStream body = new MemoryStream(); // guarded by body, as what follows
        bool whole, canceled;
        long credit = Frames.InitialWindow;
        bool headed; // HEAD was sent

        internal Call(Link link, int stream, byte[] meta, byte[] data)
        {
            this.link = link;
            this.stream = stream;
            this.meta = meta;
            Log = new LineLog(link, stream, link.Spec.Log + 65536);
            body.Write(data, 0, data.Length);
            using (JsonDocument d = JsonDocument.Parse(meta)) whole = d.RootElement.Text("body") != "stream";
        }

        // What the thread that reads tells.

        internal void Take(byte[] data)
        {
            lock (body) body.Write(data, 0, data.Length);
            var n = new byte[4];
            BinaryPrimitives.WriteInt32BigEndian(n, data.Length);
            link.Send(Frames.Make(Frames.Window, stream, n));
        }

        internal void TakeEnd()
        {
            lock (body)
            {
                whole = true;
                Monitor.PulseAll(body);
            }
        }

        internal void Cancel()
        {
            lock (body)
            {
                canceled = true;
                Monitor.PulseAll(body);
            }
        }

        internal void Grant(int n)
        {
            lock (body)
            {
                credit += n;
                Monitor.PulseAll(body);
            }
        }

        // What the call's own thread does.

        /// <summary>Calls the function and answers. Returns when the call is over.</summary>
        internal void Run(Function function)
        {
            Output.Current.Value = this;
            try
            {
                Answer(function, Made(function, Input()));
            }
            catch (Exception e)
            {
                byte[] error = Wrapped(Fault.Of(e));
                if (headed) Finish(Frames.End, null, error);
                else Finish(Frames.Result, error, Frames.Nothing);
            }
            Output.Current.Value = null;
        }

        object Made(Function function, string input)
        {
            try
            {
                return function.Call(input);
            }
            catch (Exception e)
            {
                e = Fault.Unwrap(e);
                if (!(e is Fault) && !(e is OutOfMemoryException)) Console.Error.Write(Fault.Trace(e));
                throw;
            }
        }

        static byte[] Wrapped(byte[] fault)
        {
            byte[] before = Encoding.ASCII.GetBytes("{\"error\":");
            return Frames.Join(Frames.Join(before, fault), new[] { (byte)'}' });
        }

        byte[] Body()
        {
            lock (body)
            {
                while (!whole && !canceled) Monitor.Wait(body);
                if (!whole) throw new Fault("the caller went away before the end of its request");
                return body.ToArray();
            }
        }

        /// <summary>The arguments as one value of JSON, and the environment of the call put in place.</summary>
        string Input()
        {
            byte[] data = Body();
            using (JsonDocument d = JsonDocument.Parse(meta))
            {
                JsonElement m = d.RootElement;
                if (m.TryGetProperty("env", out JsonElement env) && env.ValueKind == JsonValueKind.Object)
                {
                    foreach (JsonProperty p in env.EnumerateObject()) Environment.SetEnvironmentVariable(p.Name, p.Value.GetString());
                }
                string query = m.Text("query"), text = null;
                try
                {
                    text = Strict.GetString(data).Trim();
                }
                catch (ArgumentException) { } // bytes, which are one argument
                if (text != null && (text.StartsWith("[") || text.StartsWith("{") && query == "") && Json.IsValid(data)) return text;
                return Arguments(query, text, data, TypeOf(m));
            }
        }

        static string TypeOf(JsonElement meta)
        {
            if (!meta.TryGetProperty("headers", out JsonElement headers)) return "";
            foreach (JsonProperty h in headers.EnumerateObject())
            {
                if (h.Name.Equals("Content-Type", StringComparison.OrdinalIgnoreCase) && h.Value.ValueKind == JsonValueKind.Array && h.Value.GetArrayLength() > 0)
                {
                    return h.Value[0].GetString().Split(';')[0].Trim().ToLowerInvariant();
                }
            }
            return "";
        }

        /// <summary>Parameters of the URL, then the fields of a JSON object or form. Another body is the one argument "body".</summary>
        static string Arguments(string query, string text, byte[] data, string type)
        {
            var args = new Dictionary<string, object>();
            void Form(string pairs)
            {
                foreach (string pair in pairs.Split('&'))
                {
                    int at = pair.IndexOf('=');
                    if (pair != "") args[WebUtility.UrlDecode(at < 0 ? pair : pair.Substring(0, at))] = WebUtility.UrlDecode(at < 0 ? "" : pair.Substring(at + 1));
                }
            }
            Form(query);
            bool form = type == "application/x-www-form-urlencoded";
            bool json = type == "application/json" || type.EndsWith("+json");
            JsonDocument d = null;
            if (text != null && text != "" && (type == "" || form || json)) // a form is tried as JSON first, because that is what curl -d calls JSON
            {
                try
                {
                    d = JsonDocument.Parse(text);
                }
                catch (JsonException e)
                {
                    if (json) throw new Fault("the request says that its body is JSON, and it is not: " + e.Message, "invalid");
                }
            }
            using (d)
            {
                if (d != null && d.RootElement.ValueKind == JsonValueKind.Object) foreach (JsonProperty p in d.RootElement.EnumerateObject()) args[p.Name] = p.Value;
                else if (d != null) args["body"] = d.RootElement;
                else if (form && text != null) Form(text);
                else if (data.Length > 0) args["body"] = text != null ? Strict.GetString(data) : Convert.ToBase64String(data);
                return Encoding.UTF8.GetString(Json.Bytes(w =>
                {
                    foreach (var a in args)
                    {
                        w.WritePropertyName(a.Key);
                        if (a.Value is JsonElement e) e.WriteTo(w);
                        else w.WriteStringValue((string)a.Value);
                    }
                }));
            }
        }

        void Answer(Function function, object value)
        {
            string text = function.Answer(value, out bool failed);
            byte[] data = Encoding.UTF8.GetBytes(text);
            if (!Json.IsValid(data)) throw new Fault(Invalid + text.Substring(0, Math.Min(text.Length, 1000)));
            long most = link.Spec.Response;
            if (data.Length > most)
            {
                failed = true;
                data = Json.Bytes(w => w.WriteString("error", "the action's response is too long: " + data.Length + " bytes are more than the " + most
                    + " that are allowed; it begins: " + text.Substring(0, Math.Min(text.Length, Shown))));
            }
            byte[] head = failed ? Failed : Good;
            if (data.Length <= Frames.MaxWhole)
            {
                Finish(Frames.Result, head, data);
                return;
            }
            headed = true;
            link.Send(Frames.MakeMeta(Log.Rest(), Frames.Head, stream, head, Frames.Nothing));
            for (int at = 0; at < data.Length;)
            {
                int n;
                lock (body)
                {
                    while (credit <= 0 && !canceled) Monitor.Wait(body);
                    if (canceled) throw new Fault("the caller went away");
                    n = (int)Math.Min(Math.Min(data.Length - at, credit), Frames.Chunk);
                    credit -= n;
                }
                link.Send(Frames.Make(Frames.Data, stream, data, at, n));
                at += n;
            }
            Finish(Frames.End, null, new[] { (byte)'{', (byte)'}' });
        }

        /// <summary>Sends the last frame.</summary>
        void Finish(byte type, byte[] head, byte[] data)
        {
            link.Calls.TryRemove(stream, out _);
            byte[] rest = Log.Rest();
            Ended = true;
            link.Send(type == Frames.End ? Frames.Join(rest, Frames.Make(type, stream, data)) : Frames.MakeMeta(rest, type, stream, head, data));
        }
    }
}
