using System;
using System.Buffers;
using System.Buffers.Binary;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Brasa
{
    /// <summary>The frames of protocol 1: u32 length of the rest, u8 type, u32 stream, payload; numbers in big-endian order.</summary>
    static class Frames
    {
        internal const byte LoadOf = 1, CallOf = 2, BodyOf = 3, BodyEnd = 4, Cancel = 5, Credit = 6;
        internal const byte Hello = 16, Loaded = 17, LoadFailed = 18, Log = 19, Result = 20, Head = 21, Data = 22, End = 23, Window = 24;

        internal const int MaxPayload = 1 << 20;
        internal const int MaxWhole = 256 << 10; // an answer up to this size travels in one frame
        internal const int InitialWindow = 1 << 20;
        internal const int Chunk = 128 << 10; // bytes in one DATA frame
        internal static readonly byte[] Nothing = new byte[0];

        internal static byte[] Make(byte type, int stream, byte[] payload) => Make(type, stream, payload, 0, payload.Length);

        internal static byte[] Make(byte type, int stream, byte[] payload, int from, int n)
        {
            var b = new byte[9 + n];
            PutHead(b, 0, type, stream, n);
            Buffer.BlockCopy(payload, from, b, 9, n);
            return b;
        }

        /// <summary>A RESULT or HEAD, with what is to be sent before it in front.</summary>
        internal static byte[] MakeMeta(byte[] before, byte type, int stream, byte[] meta, byte[] body)
        {
            int at = before.Length;
            var b = new byte[at + 13 + meta.Length + body.Length];
            Buffer.BlockCopy(before, 0, b, 0, at);
            PutHead(b, at, type, stream, 4 + meta.Length + body.Length);
            BinaryPrimitives.WriteInt32BigEndian(b.AsSpan(at + 9), meta.Length);
            Buffer.BlockCopy(meta, 0, b, at + 13, meta.Length);
            Buffer.BlockCopy(body, 0, b, at + 13 + meta.Length, body.Length);
            return b;
        }

        internal static void PutHead(byte[] b, int at, byte type, int stream, int n)
        {
            BinaryPrimitives.WriteInt32BigEndian(b.AsSpan(at), n + 5);
            b[at + 4] = type;
            BinaryPrimitives.WriteInt32BigEndian(b.AsSpan(at + 5), stream);
        }

        internal static byte[] Join(byte[] a, byte[] b)
        {
            if (a.Length == 0) return b;
            var all = new byte[a.Length + b.Length];
            Buffer.BlockCopy(a, 0, all, 0, a.Length);
            Buffer.BlockCopy(b, 0, all, a.Length, b.Length);
            return all;
        }
    }

    static class Json
    {
        internal static byte[] Bytes(Action<Utf8JsonWriter> fields)
        {
            var buffer = new ArrayBufferWriter<byte>();
            using (var w = new Utf8JsonWriter(buffer, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
            {
                w.WriteStartObject();
                fields(w);
                w.WriteEndObject();
            }
            return buffer.WrittenSpan.ToArray();
        }

        /// <summary>Whether bytes are one value of JSON.</summary>
        internal static bool IsValid(byte[] data)
        {
            try
            {
                var r = new Utf8JsonReader(data, new JsonReaderOptions { MaxDepth = 1000 });
                while (r.Read()) { }
                return true;
            }
            catch (JsonException)
            {
                return false;
            }
        }

        internal static string Text(this JsonElement e, string name) =>
            e.TryGetProperty(name, out JsonElement v) && v.ValueKind == JsonValueKind.String ? v.GetString() : "";

        internal static long Number(this JsonElement e, string name, long otherwise) =>
            e.TryGetProperty(name, out JsonElement v) && v.ValueKind == JsonValueKind.Number ? v.GetInt64() : otherwise;
    }
}
