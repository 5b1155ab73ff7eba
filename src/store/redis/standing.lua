-- What a channel's log looks like.
-- KEYS: head, log, meta, state
-- Returns beginning, opened, trimmed_to, last, the end's id ('' = open), number of keys, the oldest
-- event's id.
local keys = redis.call('HLEN', KEYS[4])
return {beginning, opened, trimmed_to, last, closed, tostring(keys), oldest and oldest[1] or ''}
