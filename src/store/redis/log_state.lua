-- What a channel's log looks like.
-- KEYS: head, log, meta, state
-- Returns beginning, opened, trimmed_to, last, the end's id ('' = open), number of keys, the oldest
-- event's id.
local keys = redis.call('HLEN', KEYS[4])
-- A state that is lost is still asked for, so that its gap is sent.
local bytes = redis.call('HGET', meta, 'state_bytes') or '0'
if keys == 0 and tonumber(bytes) > 0 then keys = 1 end
return {beginning, opened, trimmed_to, last, closed, tostring(keys), oldest and oldest[1] or ''}
