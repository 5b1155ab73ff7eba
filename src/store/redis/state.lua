-- Returns a channel's state and the position in the log at which it is taken. In an ended channel
-- this position is before the `end` event.
-- KEYS: head, log, meta, state
-- Returns the position, '1' if the state is lost, then the key and the row of each event.
local position = last
if closed ~= '' then
  local entry = redis.call('XRANGE', log, closed, closed)[1]
  if entry and field(entry, 'p') ~= '' then position = field(entry, 'p') end
end
local rows = redis.call('HGETALL', KEYS[4])
local bytes = tonumber(known[5] or '0')
table.insert(rows, 1, position)
table.insert(rows, 2, #rows == 1 and bytes > 0 and '1' or '')
return rows
