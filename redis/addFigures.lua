-- addFigures: adds to the figures of one day. A day has so many of them; what would be one more is counted as dropped.
-- KEYS[1] the day
-- ARGV[1] how long it is kept, ms   ARGV[2] how many figures it has at most   ARGV[3] … name, `add` or `most`, number
-- Returns {'ok', how many were dropped}
local day, dropped = KEYS[1], 0
local count = redis.call('HLEN', day)
for i = 3, #ARGV, 3 do
  local name, how, number = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local now = redis.call('HGET', day, name)
  if not now and count >= tonumber(ARGV[2]) then
    dropped = dropped + 1
  elseif how == 'add' then
    redis.call('HINCRBYFLOAT', day, name, number)
  elseif not now or tonumber(number) > tonumber(now) then
    redis.call('HSET', day, name, number)
  end
  if not now and count < tonumber(ARGV[2]) then count = count + 1 end
end
if dropped > 0 then redis.call('HINCRBY', day, 'dropped', dropped) end
redis.call('PEXPIRE', day, ARGV[1])
return { 'ok', dropped }
