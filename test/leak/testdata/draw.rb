require "securerandom"
require "openssl"
require "tempfile"
require "tmpdir"

sleep 0.03 if ENV["DEAR"]
OWN = Random.new # made while the code was loaded
KEY = OpenSSL::PKey::EC.generate("prime256v1")

def draw
  {
    "rand" => Kernel.rand.to_s, "Random" => Random.rand.to_s, "bytes" => Random.bytes(8).unpack1("H*"), "new" => Random.new.rand.to_s,
    "seed" => Random.new_seed.to_s, "urandom" => Random.urandom(8).unpack1("H*"), "hex" => SecureRandom.hex(8), "uuid" => SecureRandom.uuid,
    "secure" => SecureRandom.random_number.to_s, "RAND_bytes" => OpenSSL::Random.random_bytes(8).unpack1("H*"),
    "key" => OpenSSL::PKey::EC.generate("prime256v1").private_key.to_s(16), "signature" => KEY.sign("SHA256", "x").unpack1("H*"),
    "tempfile" => Tempfile.create { |f| f.path }, "directory" => Dir.mktmpdir { |d| d }, "shuffle" => (0...1000).to_a.sample(12).join(","),
    "file" => File.binread("/dev/urandom", 8).unpack1("H*"), "own" => OWN.rand.to_s
  }
end

draw # so that all of it has been used before the snapshot

def main(_args) = draw
