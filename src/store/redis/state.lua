-- A channel's state, and the place in the log at which it is taken: before the end of an ended one.
-- KEYS: head, log, meta, state
-- Returns the place, '1' when the state is lost, then key and row of each.
local position = last
if closed ~= '' then
  local entry = redis.call('XRANGE', log, closed, closed)[1]
  if entry and field(entry, 'p') ~= '' then position = field(entry, 'p') end
end
local rows = redis.call('HGETALL', KEYS[4])
local bytes = tonumber(redis.call('HGET', meta, 'state_bytes') or '0')
table.insert(rows, 1, position)
table.insert(rows, 2, #rows == 1 and bytes > 0 and '1' or '')
return rows
