-- Tests which of the commands that the scripts need this user may not run.
-- KEYS: a string, a stream and a hash that nothing else uses; they expire after a second
-- Returns the names of the refused commands.
local text, log, map = unpack(KEYS)
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  local problem = type(answer) == 'table' and answer.err or ''
  -- A server with full memory and a replica answer with other errors. Those are detected when a
  -- command needs them.
  for _, words in ipairs({'NOPERM', 'ACL failure', "can't run this command", 'nknown'}) do
    if string.find(problem, words, 1, true) then
      refused[#refused + 1] = string.lower((...))
      return
    end
  end
end
try('TIME')
try('SET', text, '1', 'PX', 1000)
try('GET', text)
try('EXISTS', text)
try('XADD', log, '*', 'a', 'b')
try('XLEN', log)
try('XRANGE', log, '-', '+')
try('XREVRANGE', log, '+', '-')
try('XREAD', 'COUNT', 1, 'STREAMS', log, '0')
try('XTRIM', log, 'MAXLEN', '~', 1)
try('HSET', map, 'a', 'b')
try('HGET', map, 'a')
try('HMGET', map, 'a')
try('HGETALL', map)
try('HLEN', map)
try('HSTRLEN', map, 'a')
try('HDEL', map, 'b')
try('PERSIST', map)
try('PEXPIRE', log, 1000)
try('PEXPIRE', map, 1000)
return refused
