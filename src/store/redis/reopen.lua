-- Reopens an ended channel for publishes.
-- KEYS: meta    Returns 1 if the channel exists, otherwise 0.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], 'closed')
return 1
