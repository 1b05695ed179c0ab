using System;
using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Threading;

namespace Brasa
{
    /// <summary>What the host says of the function.</summary>
    sealed class Spec
    {
        internal string Code, Handler;
        internal Dictionary<string, string> Env = new Dictionary<string, string>();
        internal int Concurrency;
        internal long Response, Log;

        internal static Spec Read(byte[] payload)
        {
            using (JsonDocument d = JsonDocument.Parse(payload))
            {
                JsonElement e = d.RootElement;
                var s = new Spec
                {
                    Code = e.Text("code"), Handler = e.Text("handler"), Concurrency = (int)Math.Max(1, e.Number("concurrency", 1)),
                    Response = e.Number("response_bytes", long.MaxValue), Log = e.Number("log_bytes", 0),
                };
                if (e.TryGetProperty("env", out JsonElement env) && env.ValueKind == JsonValueKind.Object)
                {
                    foreach (JsonProperty p in env.EnumerateObject()) s.Env[p.Name] = p.Value.GetString();
                }
                if (e.Text("contract") != "openwhisk") throw new Fault("this runtime calls actions of OpenWhisk alone");
                return s;
            }
        }
    }

    /// <summary>
    /// Our end of the socket. The main thread reads; calls run on threads of their own, as many as there were at once, so that
    /// CANCEL is read while they run.
    /// </summary>
    sealed class Link
    {
        internal readonly ConcurrentDictionary<int, Call> Calls = new ConcurrentDictionary<int, Call>();
        internal Spec Spec;

        readonly int fd; // -1: what is sent goes nowhere
        readonly object sending = new object();
        byte[] buffer = new byte[16 << 10];
        int from, to;

        readonly BlockingCollection<Call> waiting = new BlockingCollection<Call>();
        int threads, idle; // of those that run calls

        // The runtime has no public way to a descriptor that is neither file nor standard stream and may be a socket.
        [DllImport("libc", SetLastError = true, EntryPoint = "read")]
        static extern IntPtr ReadFrom(int fd, ref byte data, IntPtr n);

        [DllImport("libc", SetLastError = true, EntryPoint = "write")]
        static extern IntPtr WriteTo(int fd, ref byte data, IntPtr n);

        [DllImport("libc", EntryPoint = "fcntl")]
        static extern int Control(int fd, int command, int argument);

        [DllImport("libc", EntryPoint = "_exit")]
        static extern void Leave(int status);

        const int Interrupted = 4; // EINTR
        const int SetFlags = 2, CloseOnExec = 1;

        internal Link(int fd)
        {
            this.fd = fd;
            if (fd >= 0) Control(fd, SetFlags, CloseOnExec); // a program that the function starts has no business with it
        }

        internal void Send(byte[] data)
        {
            if (fd < 0 || data.Length == 0) return;
            lock (sending)
            {
                for (int at = 0; at < data.Length;)
                {
                    long n = (long)WriteTo(fd, ref data[at], (IntPtr)(data.Length - at));
                    if (n > 0) at += (int)n;
                    else if (n == 0 || Marshal.GetLastWin32Error() != Interrupted) Gone(0);
                }
            }
        }

        /// <summary>Ends the process at once: the host is gone, and with it whoever would care.</summary>
        internal void Gone(int status) => Leave(status);

        internal void FlushAll()
        {
            foreach (Call c in Calls.Values) c.Log.Flush();
            Output.Instance.Flush();
        }

        internal Spec AwaitLoad()
        {
            while (Spec == null)
            {
                int n = AwaitFrame();
                if (buffer[from + 4] == Frames.LoadOf) Spec = Spec.Read(Payload(n));
                from += n;
            }
            return Spec;
        }

        byte[] Payload(int n)
        {
            var b = new byte[n - 9];
            Buffer.BlockCopy(buffer, from + 9, b, 0, b.Length);
            return b;
        }

        /// <summary>Serves calls for ever.</summary>
        internal void Serve(Function function)
        {
            while (true)
            {
                int n = AwaitFrame();
                byte type = buffer[from + 4];
                int stream = BinaryPrimitives.ReadInt32BigEndian(buffer.AsSpan(from + 5));
                byte[] payload = Payload(n);
                from += n;
                if (type == Frames.CallOf)
                {
                    int m = BinaryPrimitives.ReadInt32BigEndian(payload);
                    var call = new Call(this, stream, payload.AsSpan(4, m).ToArray(), payload.AsSpan(4 + m).ToArray());
                    Calls[stream] = call;
                    Hand(call, function);
                    continue;
                }
                if (!Calls.TryGetValue(stream, out Call of)) continue; // it is over
                switch (type)
                {
                    case Frames.BodyOf: of.Take(payload); break;
                    case Frames.BodyEnd: of.TakeEnd(); break;
                    case Frames.Cancel: of.Cancel(); break;
                    case Frames.Credit: of.Grant(BinaryPrimitives.ReadInt32BigEndian(payload)); break;
                }
            }
        }

        void Hand(Call call, Function function)
        {
            if (Volatile.Read(ref idle) <= waiting.Count && threads < Spec.Concurrency)
            {
                threads++;
                var t = new Thread(() =>
                {
                    while (true)
                    {
                        Interlocked.Increment(ref idle);
                        Call c = waiting.Take();
                        Interlocked.Decrement(ref idle);
                        c.Run(function);
                    }
                }, 8 << 20) { IsBackground = true, Name = "brasa-" + threads };
                t.Start();
            }
            waiting.Add(call);
        }

        /// <summary>Waits until a whole frame lies at from; returns its length.</summary>
        int AwaitFrame()
        {
            while (true)
            {
                int want = 16 << 10;
                if (to - from >= 9)
                {
                    int n = BinaryPrimitives.ReadInt32BigEndian(buffer.AsSpan(from)) + 4;
                    if (n < 9 || n > 9 + Frames.MaxPayload)
                    {
                        Gone(70);
                    }
                    if (to - from >= n) return n;
                    want = n;
                }
                Room(want);
                long got = (long)ReadFrom(fd, ref buffer[to], (IntPtr)(buffer.Length - to));
                if (got > 0) to += (int)got;
                else if (got == 0 || Marshal.GetLastWin32Error() != Interrupted) Gone(0);
            }
        }

        /// <summary>Makes room for n bytes from from.</summary>
        void Room(int n)
        {
            if (from == to && buffer.Length > 64 << 10) buffer = new byte[16 << 10]; // a large frame was here, and has gone
            if (from == to) from = to = 0;
            if (buffer.Length - from >= n && to < buffer.Length) return;
            byte[] b = n > buffer.Length ? new byte[Math.Max(n, 256 << 10)] : buffer;
            Buffer.BlockCopy(buffer, from, b, 0, to - from);
            buffer = b;
            to -= from;
            from = 0;
        }
    }
}
