-- A channel's state, and the place in the log at which it is taken: before the end of an ended one.
-- KEYS: log, meta, state
-- Returns the place, then key and row of each.
local log, meta, state = unpack(KEYS)
local known = redis.call('HMGET', meta, 'last', 'closed')
local position = known[1] or '0-0'
if known[2] then
  local entry = redis.call('XRANGE', log, known[2], known[2])[1]
  if entry then position = entry[2][2] end
end
local rows = redis.call('HGETALL', state)
table.insert(rows, 1, position)
return rows
