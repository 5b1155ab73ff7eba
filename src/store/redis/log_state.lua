-- Returns the bounds and the status of a channel's log.
-- KEYS: head, log, meta, state
-- Returns beginning, opened, low watermark, last id, the id of the `end` event ('' = open), number
-- of keys, and the id of the oldest event.
local keys = redis.call('HLEN', KEYS[4])
-- A lost state counts as a key, so that it is read and its gap is delivered.
if keys == 0 and tonumber(known[5] or '0') > 0 then keys = 1 end
return {beginning, opened, trimmed_to, last, closed, tostring(keys), oldest and oldest[1] or ''}
