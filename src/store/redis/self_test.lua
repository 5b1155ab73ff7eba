-- Finds the commands that the scripts need and that this user may not run.
-- KEYS: a string, a stream and a hash that nothing else uses, which expire after a second; then keys
--       of each kind, which are not used: Redis refuses the whole script without permission for one
-- Returns the names of the refused commands.
local text, log, map = KEYS[1], KEYS[2], KEYS[3]
local refused, known = {}, {}
local function try(...)
  local answer = redis.pcall(...)
  local problem = type(answer) == 'table' and answer.err or ''
  -- A server with full memory and a replica answer with other errors. Those are detected when a
  -- command needs them.
  for _, words in ipairs({'NOPERM', 'ACL failure', "can't run this command", 'nknown'}) do
    local name = string.lower((...))
    if string.find(problem, words, 1, true) and not known[name] then
      known[name] = true
      refused[#refused + 1] = name
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
try('HSCAN', map, '0')
try('HDEL', map, 'b')
try('PERSIST', map)
try('PEXPIRE', log, 1000)
try('PEXPIRE', map, 1000)
return refused
