-- claimDeliveries: hands due deliveries of webhooks to one caller, some of each webhook, so that one whose receiver
--   hangs takes no other's turn. If the caller dies, they are due again after the hold.
-- KEYS[1] webhooks with deliveries that are due or will be, scored by when
-- ARGV[1] webhooks at most   ARGV[2] deliveries of each at most   ARGV[3] hold, ms   ARGV further: webhooks to leave
--   alone, because the caller has its hands full with them
-- Returns the sessions whose ends are to be told
local base = string.match(KEYS[1], '^(.-}:)')
local now = farmTime(base)
local busy, claimed = {}, {}
for i = 4, #ARGV do busy[ARGV[i]] = true end
for _, webhook in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  if not busy[webhook] then
    local pending = base .. 'deliveries:pending:' .. webhook
    for _, session in ipairs(redis.call('ZRANGEBYSCORE', pending, '-inf', now, 'LIMIT', 0, ARGV[2])) do
      redis.call('ZADD', pending, now + ARGV[3], session)
      claimed[#claimed + 1] = session
    end
    local first = redis.call('ZRANGE', pending, 0, 0, 'WITHSCORES')
    if first[1] then redis.call('ZADD', KEYS[1], first[2], webhook) else redis.call('ZREM', KEYS[1], webhook) end
  end
end
return claimed
