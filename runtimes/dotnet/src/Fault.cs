using System;
using System.Reflection;
using System.Text;

namespace Brasa
{
    /// <summary>An error whose message says all; it has no trace. Its static methods describe any error for the host.</summary>
    sealed class Fault : Exception
    {
        const int MostFrames = 60, Deepest = 8;

        readonly string code, limit;

        internal Fault(string message, string code = "", string limit = "") : base(message)
        {
            this.code = code;
            this.limit = limit;
        }

        /// <summary>The error that a wrapper, which says nothing of its own, was made around.</summary>
        internal static Exception Unwrap(Exception e)
        {
            while (e.InnerException != null && (e is TargetInvocationException || e is TypeInitializationException
                || e is AggregateException a && a.InnerExceptions.Count == 1))
            {
                e = e.InnerException;
            }
            return e;
        }

        /// <summary>An error as the host reads it.</summary>
        internal static byte[] Of(Exception e)
        {
            e = Unwrap(e);
            return Json.Bytes(w =>
            {
                if (e is Fault f)
                {
                    w.WriteString("message", Clip(f.Message, 4000));
                    if (f.code != "") w.WriteString("code", f.code);
                    if (f.limit != "") w.WriteString("limit", f.limit);
                    return;
                }
                w.WriteString("kind", Clip(e.GetType().FullName, 200));
                w.WriteString("message", Clip(MessageOf(e), 4000));
                w.WriteString("trace", Clip(Trace(e), 24000));
                if (e is OutOfMemoryException) w.WriteString("limit", "memory_bytes");
            });
        }

        static string MessageOf(Exception e)
        {
            try
            {
                return e.Message;
            }
            catch (Exception broken)
            {
                return "(its message cannot be made: " + broken.GetType().FullName + ")";
            }
        }

        static string Clip(string s, int most) => s == null ? "" : s.Length <= most ? s : s.Substring(0, most);

        /// <summary>The stack as .NET prints it, without our frames and those of reflection.</summary>
        internal static string Trace(Exception e)
        {
            var s = new StringBuilder();
            for (int depth = 0; e != null && depth < Deepest; depth++, e = e.InnerException)
            {
                s.Append(depth == 0 ? "" : "Caused by: ").Append(e.GetType().FullName).Append(": ").Append(MessageOf(e)).Append('\n');
                int shown = 0;
                foreach (string line in (e.StackTrace ?? "").Split('\n'))
                {
                    string at = line.Trim();
                    if (at == "" || at.StartsWith("at Brasa.") || at.StartsWith("at System.Reflection.") || at.StartsWith("at System.RuntimeMethodHandle.")) continue;
                    if (shown++ == MostFrames)
                    {
                        s.Append("   ...\n");
                        break;
                    }
                    s.Append("   ").Append(at).Append('\n');
                }
            }
            return s.ToString();
        }
    }
}
