-- SHA-256 and HMAC in pure Lua, for scripts of Envoy's or Sluis's Lua filter.
--
--   local hash = require("lib.hash")
--   hash.sha256(text)                        -> 64 hexadecimal digits (FIPS 180-4)
--   hash.hmac(hash.sha256, key, text)        -> 64 hexadecimal digits (RFC 2104)
--
-- Needs the `bit` library of LuaJIT, which both proxies have.

-- Sluis has the same two functions in native code.
local native = package.preload["sluis.hash"]
if native then
  return native()
end

local bit = require("bit")
local band, bnot, bxor, ror, rshift, tobit = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift, bit.tobit
local byte, char, format, rep = string.byte, string.char, string.format, string.rep

local BLOCK = 64

-- The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
local K = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

-- Works one block, at `at` in `text`, into the eight words of `state`. `w` is scratch space.
local function compress(state, w, text, at)
  for i = 1, 16 do
    local a, b, c, d = byte(text, at, at + 3)
    w[i] = tobit(a * 0x1000000 + b * 0x10000 + c * 0x100 + d)
    at = at + 4
  end
  for i = 17, 64 do
    local x, y = w[i - 15], w[i - 2]
    local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
    local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
    w[i] = tobit(w[i - 16] + s0 + w[i - 7] + s1)
  end
  local a, b, c, d = state[1], state[2], state[3], state[4]
  local e, f, g, h = state[5], state[6], state[7], state[8]
  for i = 1, 64 do
    local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
    local choice = bxor(band(e, f), band(bnot(e), g))
    local t1 = tobit(h + s1 + choice + K[i] + w[i])
    local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
    local majority = bxor(band(a, b), band(a, c), band(b, c))
    h, g, f, e = g, f, e, tobit(d + t1)
    d, c, b, a = c, b, a, tobit(t1 + s0 + majority)
  end
  state[1], state[2] = tobit(state[1] + a), tobit(state[2] + b)
  state[3], state[4] = tobit(state[3] + c), tobit(state[4] + d)
  state[5], state[6] = tobit(state[5] + e), tobit(state[6] + f)
  state[7], state[8] = tobit(state[7] + g), tobit(state[8] + h)
end

-- Four bytes, most significant first.
local function word(value)
  return char(band(rshift(value, 24), 255), band(rshift(value, 16), 255), band(rshift(value, 8), 255), band(value, 255))
end

-- The digest of `text`, as eight words.
local function digest(text)
  local length = #text
  local padding = (BLOCK - 9 - length) % BLOCK
  -- The length in bits, 64 of them; the upper half is exact up to 2^53.
  local bits = length * 8
  local padded = text .. "\128" .. rep("\0", padding) .. word(tobit(math.floor(bits / 0x100000000))) .. word(tobit(bits % 0x100000000))
  local state = {
    0x6a09e667, tobit(0xbb67ae85), 0x3c6ef372, tobit(0xa54ff53a),
    0x510e527f, tobit(0x9b05688c), 0x1f83d9ab, 0x5be0cd19,
  }
  local w = {}
  for at = 1, #padded, BLOCK do
    compress(state, w, padded, at)
  end
  return state
end

local function hex(state)
  local parts = {}
  for i = 1, 8 do
    parts[i] = bit.tohex(state[i])
  end
  return table.concat(parts)
end

local function unhex(digits)
  return (digits:gsub("%x%x", function(pair) return char(tonumber(pair, 16)) end))
end

-- Every byte of `text` combined with `mask`.
local function masked(text, mask)
  local parts = {}
  for i = 1, #text do
    parts[i] = char(bxor(byte(text, i), mask))
  end
  return table.concat(parts)
end

local hash = {}

-- SHA-256 of a string, as lower-case hexadecimal digits.
function hash.sha256(text)
  return hex(digest(text))
end

-- HMAC of a string with a hash function of this module, as lower-case hexadecimal digits.
function hash.hmac(sum, key, text)
  assert(type(key) == "string", format("hash.hmac: the key is a %s, not a string", type(key)))
  if #key > BLOCK then
    key = unhex(sum(key))
  end
  key = key .. rep("\0", BLOCK - #key)
  return sum(masked(key, 0x5c) .. unhex(sum(masked(key, 0x36) .. text)))
end

return hash
