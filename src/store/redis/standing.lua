-- What a channel's log looks like.
-- KEYS: log, meta, state
-- Returns last, the end's id ('' = open), number of keys, the oldest event's id, what came before it.
local log, meta, state = unpack(KEYS)
local known = redis.call('HMGET', meta, 'last', 'closed')
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
return {known[1] or '0-0', known[2] or '', tostring(redis.call('HLEN', state)),
  oldest and oldest[1] or '', oldest and oldest[2][2] or ''}
