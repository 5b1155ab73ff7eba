-- Lets an ended channel take events again.
-- KEYS: meta    Returns whether there is such a channel.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], 'closed')
return 1
