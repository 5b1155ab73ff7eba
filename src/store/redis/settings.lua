-- The settings in which all origins of a deployment agree.
-- KEYS: settings    ARGV: '1' to write one's own over those of others, then name and value of each
-- Returns name and value of each that differs.
local others = {}
for at = 2, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  local differs = known and known ~= ARGV[at + 1]
  if differs then
    others[#others + 1] = ARGV[at]
    others[#others + 1] = known
  end
  if not known or differs and ARGV[1] == '1' then
    -- A replica refuses; its master is asked again later.
    redis.pcall('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
return others
