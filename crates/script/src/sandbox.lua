-- Takes away from a new state what a script must not have, and gives it `require`.
--
-- In:    `host.getenv(name)`, `host.print(text)`, `host.module(name)`: the source of a module and
--        where it was found, or nil and where it was looked for; `host.sha256(text)` and
--        `host.hmac_sha256(key, text)` in hexadecimal digits; what the handle's methods that wait
--        are made of.
-- Out:   those methods.
-- Never: leaves a way to bytecode, native libraries, processes, or files to write to.

local host = ...

local load_text, raw_open, io_type = load, io.open, io.type
local format, concat = string.format, table.concat

-- Bytecode can break the interpreter: only source is loaded.
function load(chunk, name, _, env)
  if type(chunk) == "function" then
    local parts = {}
    repeat
      local part = chunk()
      parts[#parts + 1] = part
    until part == nil or part == ""
    chunk = concat(parts)
  end
  if env == nil then
    return load_text(chunk, name, "t")
  end
  return load_text(chunk, name, "t", env)
end

function loadstring(text, name)
  return load(text, name)
end

loadfile, dofile, newproxy = nil, nil, nil
string.dump = nil

-- Only to look: a script has no business with the collector's pace.
local collect = collectgarbage
function collectgarbage(what)
  if what ~= nil and what ~= "count" and what ~= "collect" and what ~= "step" then
    error(format("collectgarbage(%q) is not available", what), 2)
  end
  return collect(what)
end

function print(...)
  local parts = { n = select("#", ...), ... }
  for i = 1, parts.n do
    parts[i] = tostring(parts[i])
  end
  host.print(concat(parts, "\t", 1, parts.n))
end

os = { clock = os.clock, date = os.date, difftime = os.difftime, time = os.time, getenv = host.getenv }

io = {
  type = io_type,
  open = function(path, mode)
    mode = mode or "r"
    if mode ~= "r" and mode ~= "rb" then
      return nil, format("%s: files can only be read here", tostring(path))
    end
    return raw_open(path, mode)
  end,
}

-- The compiler stays off: compiled code cannot be interrupted.
local compiler = jit
compiler.off()
jit = {
  version = compiler.version,
  version_num = compiler.version_num,
  os = compiler.os,
  arch = compiler.arch,
  status = function() return false end,
  on = function() end,
  off = function() end,
  flush = function() end,
}

EnvoyTimestampResolution = { MILLISECOND = "MILLISECOND", MICROSECOND = "MICROSECOND" }

package = {
  loaded = {
    _G = _G, bit = bit, coroutine = coroutine, io = io, jit = jit, math = math, os = os,
    string = string, table = table,
  },
  preload = {},
  path = host.path,
  cpath = "",
}
package.loaded.package = package

-- For modules that would compute the same in Lua, a hundred times slower.
package.preload["sluis.hash"] = function()
  local hash = { sha256 = host.sha256 }
  function hash.hmac(sum, key, text)
    assert(sum == hash.sha256, "hash.hmac: the hash function is not hash.sha256")
    assert(type(key) == "string", format("hash.hmac: the key is a %s, not a string", type(key)))
    return host.hmac_sha256(key, text)
  end
  return hash
end

local loaded, preload, loading = package.loaded, package.preload, {}

function require(name)
  if type(name) ~= "string" then
    error(format("bad argument #1 to 'require' (string expected, got %s)", type(name)), 2)
  end
  local module = loaded[name]
  if module ~= nil then
    return module
  end
  if loading[name] then
    error(format("loop in module '%s'", name), 2)
  end
  local run, place = preload[name], nil
  if run == nil then
    local source
    source, place = host.module(name)
    if source == nil then
      error(format("module '%s' not found:%s", name, place), 2)
    end
    local fault
    run, fault = load_text(source, "@" .. place, "t")
    if run == nil then
      error(format("module '%s' cannot be loaded: %s", name, fault), 2)
    end
  end
  loading[name] = true
  local ok, value = pcall(run, name, place)
  loading[name] = nil
  if not ok then
    error(value, 0)
  end
  if value ~= nil then
    loaded[name] = value
  elseif loaded[name] == nil then
    loaded[name] = true
  end
  return loaded[name]
end

-- The methods of the handle that wait: a coroutine can only be left in Lua. What they wait for comes
-- back from `yield`.
local yield = coroutine.yield
local waiting = {}

function waiting.body(handle, ...)
  local is_there, body = host.body(handle, ...)
  if is_there then
    return body
  end
  return yield()
end

function waiting.trailers(handle)
  local is_there, trailers = host.trailers(handle)
  if is_there then
    return trailers
  end
  return yield()
end

function waiting.bodyChunks(handle)
  host.chunks(handle)
  return function()
    if host.next_chunk(handle) then
      return yield()
    end
  end
end

function waiting.httpCall(handle, ...)
  if host.call(handle, ...) then
    return yield()
  end
end

function waiting.respond(handle, ...)
  host.respond(handle, ...)
  -- Nobody resumes it.
  yield()
end

return waiting
