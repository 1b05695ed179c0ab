using System;
using System.IO;
using System.Text;
using System.Threading;

namespace Brasa
{
    /// <summary>Turns what a call writes into whole lines, one frame for as many as come at once.</summary>
    sealed class LineLog
    {
        const int MaxPart = 32 << 10; // bytes of a line that are kept while its end has not come

        readonly Link link;
        readonly int stream;
        readonly byte[][] parts = { null, Frames.Nothing, Frames.Nothing };
        long budget;

        internal LineLog(Link link, int stream, long budget)
        {
            this.link = link;
            this.stream = stream;
            this.budget = budget;
        }

        internal void Write(int which, byte[] data, int from, int n)
        {
            byte[] ready = Frames.Nothing;
            lock (parts)
            {
                byte[] part = parts[which];
                var all = new byte[part.Length + n];
                Buffer.BlockCopy(part, 0, all, 0, part.Length);
                Buffer.BlockCopy(data, from, all, part.Length, n);
                int cut = Array.LastIndexOf(all, (byte)'\n') + 1; // behind the last line's end
                if (cut == 0 && all.Length > MaxPart)
                {
                    cut = all.Length;
                    while (cut > all.Length - 4 && (all[cut - 1] & 0xC0) == 0x80) cut--; // not within a character
                    if ((all[cut - 1] & 0xC0) == 0xC0) cut--;
                }
                parts[which] = cut == all.Length ? Frames.Nothing : all.AsSpan(cut).ToArray();
                if (cut > 0) ready = Lines(which, all, cut);
            }
            link.Send(ready);
        }

        byte[] Lines(int which, byte[] data, int n)
        {
            byte[] all = Frames.Nothing;
            if (budget <= 0) return all; // the host drops what is over, so it need not be sent
            budget -= n;
            for (int at = 0; at < n; at += Frames.MaxWhole)
            {
                int size = Math.Min(n - at, Frames.MaxWhole);
                var f = new byte[10 + size];
                Frames.PutHead(f, 0, Frames.Log, stream, 1 + size);
                f[9] = (byte)which;
                Buffer.BlockCopy(data, at, f, 10, size);
                all = Frames.Join(all, f);
            }
            return all;
        }

        /// <summary>The frames of lines that have no end.</summary>
        internal byte[] Rest()
        {
            byte[] all = Frames.Nothing;
            lock (parts)
            {
                for (int which = 1; which <= 2; which++)
                {
                    if (parts[which].Length == 0) continue;
                    all = Frames.Join(all, Lines(which, parts[which], parts[which].Length));
                    parts[which] = Frames.Nothing;
                }
            }
            return all;
        }

        internal void Flush() => link.Send(Rest());
    }

    /// <summary>What Console.Out and Console.Error write to: the log of the call on whose behalf code runs.</summary>
    sealed class Output : Stream
    {
        internal static LineLog Instance; // lines of no call

        /// <summary>The call on whose behalf code runs; threads and tasks that it starts inherit it.</summary>
        internal static readonly AsyncLocal<Call> Current = new AsyncLocal<Call>();

        readonly int which;

        Output(int which) => this.which = which;

        internal static void Install()
        {
            Console.SetOut(Writer(1));
            Console.SetError(Writer(2));
        }

        static TextWriter Writer(int which) =>
            TextWriter.Synchronized(new StreamWriter(new Output(which), new UTF8Encoding(false), 4096) { AutoFlush = true });

        LineLog Log
        {
            get
            {
                Call call = Current.Value;
                return call == null || call.Ended ? Instance : call.Log;
            }
        }

        public override void Write(byte[] data, int from, int n)
        {
            if (n > 0) Log.Write(which, data, from, n);
        }

        public override void Write(ReadOnlySpan<byte> data) => Write(data.ToArray(), 0, data.Length);
        public override bool CanRead => false;
        public override bool CanSeek => false;
        public override bool CanWrite => true;
        public override long Length => throw new NotSupportedException();
        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }
        public override void Flush() { }
        public override int Read(byte[] data, int from, int n) => throw new NotSupportedException();
        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();
        public override void SetLength(long value) => throw new NotSupportedException();
    }
}
