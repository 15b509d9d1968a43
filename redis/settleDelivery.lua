-- settleDelivery: what became of a try to tell a webhook of a session's end. The number of tries is the fence: a
--   process that was away meanwhile changes nothing.
-- Uses: prelude
-- KEYS[1] session, which may be gone
-- ARGV[1] tries as the caller has read them ('' when it does not matter)   ARGV[2] delivered | dead | again | gone: its
--   webhook was removed | send: by hand, once more from the first try
-- ARGV[3] ms until it is tried again   ARGV[4] what happened, in words
-- ARGV[5] how many delivered ones of a webhook are kept   ARGV[6] how many dead ones
-- Returns {'ok'} | {'stale'} | {'missing'}
local known, verdict, delay, said = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local D = B .. 'delivery:' .. sid
local record = redis.call('HMGET', D, 'webhook', 'state', 'tries')
local webhook, state = record[1], record[2]
if not webhook then return { 'missing' } end
if known ~= '' and (record[3] ~= known or state ~= 'pending') then return { 'stale' } end
local function list(of) return B .. 'deliveries:' .. of .. ':' .. webhook end

redis.call('ZREM', list(state), sid)
if verdict == 'gone' then
  redis.call('DEL', D)
else
  local to = (verdict == 'delivered' or verdict == 'dead') and verdict or 'pending'
  redis.call('HSET', D, 'state', to, 'tries', verdict == 'send' and 0 or record[3] + 1)
  if verdict ~= 'send' then redis.call('HSET', D, 'said', said, 'triedAt', wall) end
  redis.call('ZADD', list(to), to == 'pending' and now + delay or wall, sid)
  if to ~= 'pending' then
    local surplus = redis.call('ZCARD', list(to)) - (to == 'dead' and ARGV[6] or ARGV[5])
    for _, oldest in ipairs(surplus > 0 and redis.call('ZRANGE', list(to), 0, surplus - 1) or {}) do
      redis.call('ZREM', list(to), oldest)
      redis.call('DEL', B .. 'delivery:' .. oldest)
    end
  end
end
local first = redis.call('ZRANGE', list('pending'), 0, 0, 'WITHSCORES')
if first[1] then redis.call('ZADD', B .. 'webhooks', first[2], webhook) else redis.call('ZREM', B .. 'webhooks', webhook) end
return { 'ok' }
