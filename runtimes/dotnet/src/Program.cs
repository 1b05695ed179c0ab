using System;
using System.Diagnostics;
using System.IO;
using System.Text;

[assembly: System.Reflection.AssemblyTitle("Brasa's bootstrap for .NET")]
[assembly: System.Runtime.Versioning.TargetFramework(".NETCoreApp,Version=v3.1")]

namespace Brasa
{
    /// <summary>
    /// Brasa's bootstrap for .NET Core 3.1 and newer: frame protocol 1 over descriptor 3, for actions of OpenWhisk.
    ///
    /// It boots, is told its function (LOAD), and serves calls. Booting knows nothing of the function, so that a booted process
    /// can wait in stock; one that has the time calls a function of its own first, so that what a call needs is compiled.
    /// It uses nothing beyond what the runtime brings: what actions take and return is the Newtonsoft.Json of their own archive.
    /// What an action gets and may answer is written in docs/runtimes/openwhisk.md and tested in test/openwhisk.
    /// </summary>
    static class Program
    {
        static int Main(string[] args)
        {
            if (Array.IndexOf(args, "version") >= 0) // asked on the host, where there is no descriptor 3
            {
                Console.Out.Write(Environment.Version.ToString());
                return 0;
            }
            Output.Install();
            if (Array.IndexOf(args, "rehearse") >= 0) Rehearsal.Run();
            var link = new Link(3);
            Output.Instance = new LineLog(link, 0, long.MaxValue);
            AppDomain.CurrentDomain.ProcessExit += (sender, e) => link.FlushAll(); // Environment.Exit of the function
            link.Send(Frames.Make(Frames.Hello, 0, Json.Bytes(w =>
            {
                w.WriteNumber("protocol", 1);
                w.WriteString("runtime", "dotnet");
                w.WriteString("version", Environment.Version.ToString());
            })));
            Spec spec = link.AwaitLoad();
            long begin = Stopwatch.GetTimestamp();
            Function function;
            try
            {
                foreach (var e in spec.Env) Environment.SetEnvironmentVariable(e.Key, e.Value);
                TimeZoneInfo.ClearCachedData(); // TZ may be among them
                Directory.SetCurrentDirectory(spec.Code);
                function = Action.Load(spec);
            }
            catch (Exception e)
            {
                Output.Instance.Flush();
                link.Send(Frames.Make(Frames.LoadFailed, 0, Fault.Of(e)));
                link.Gone(1);
                return 1;
            }
            Output.Instance.Flush();
            long micros = (Stopwatch.GetTimestamp() - begin) * 1000000 / Stopwatch.Frequency;
            link.Send(Frames.Make(Frames.Loaded, 0, Json.Bytes(w =>
            {
                w.WriteNumber("dependency_us", 0);
                w.WriteNumber("code_us", micros);
            })));
            link.Serve(function);
            return 0;
        }
    }

    /// <summary>What is called: it makes text of JSON of text of JSON.</summary>
    abstract class Function
    {
        /// <summary>Runs the code. What it throws is the function's error.</summary>
        internal abstract object Call(string input);

        /// <summary>Writes what Call has returned as JSON; failed says that it is an error of the application.</summary>
        internal abstract string Answer(object value, out bool failed);
    }

    /// <summary>A call that nobody has made, so that the first of somebody finds its way compiled.</summary>
    static class Rehearsal
    {
        const int Times = 3;

        sealed class Echo : Function
        {
            internal override object Call(string input)
            {
                Console.WriteLine("rehearsal");
                return input;
            }

            internal override string Answer(object value, out bool failed)
            {
                failed = false;
                return (string)value;
            }
        }

        internal static void Run()
        {
            var nowhere = new Link(-1);
            Output.Instance = new LineLog(nowhere, 0, long.MaxValue);
            nowhere.Spec = Spec.Read(Encoding.UTF8.GetBytes("{\"code\":\"/\",\"handler\":\"a::b::c\",\"env\":{\"A\":\"b\"},\"concurrency\":1,\"response_bytes\":1048576,\"log_bytes\":1048576,\"contract\":\"openwhisk\"}"));
            byte[] meta = Encoding.UTF8.GetBytes("{\"id\":\"i\",\"kind\":\"invoke\",\"query\":\"\",\"headers\":{\"Content-Type\":[\"application/json\"]},\"body\":\"whole\",\"env\":{}}");
            byte[] input = Encoding.UTF8.GetBytes("{\"n\":1,\"text\":\"" + new string('x', 200) + "\",\"list\":[1.5,null,true]}");
            for (int i = 0; i < Times; i++)
            {
                var call = new Call(nowhere, 1, meta, input);
                nowhere.Calls[1] = call;
                call.Run(new Echo());
            }
            Fault.Of(new InvalidOperationException("rehearsal"));
        }
    }
}
