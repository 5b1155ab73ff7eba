-- Drops the events of an ended channel before its `end` event, and its state.
-- KEYS: head, log, meta, state, sizes    ARGV: name, idle (ms)
-- Returns the id of the `end` event, or '' if the channel is open.
local state, sizes, name, idle = KEYS[4], KEYS[5], ARGV[1], ARGV[2]
if closed == '' then return '' end
redis.call('XTRIM', log, 'MINID', closed)
local row, fields = redis.call('HGETALL', state), {}
for at = 1, #row, 2 do
  fields[#fields + 1] = row[at]
  -- Lua limits how many values a call takes.
  if #fields == 1000 or at + 2 > #row then
    redis.call('HDEL', state, unpack(fields))
    fields = {}
  end
end
local entry, size = redis.call('XRANGE', log, closed, closed)[1], '0'
if entry then size = string.format('%.0f', #field(entry, 'e')) end
redis.call('HSET', meta, 'bytes', size, 'state_bytes', '0')
redis.call('PEXPIRE', meta, idle)
local counted = redis.call('HMGET', sizes, '', name)
if counted[2] then
  local total = tonumber(counted[1] or '0') - tonumber(counted[2]) + tonumber(size)
  redis.call('HSET', sizes, '', string.format('%.0f', total), name, size)
end
return closed
