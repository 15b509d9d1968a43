-- moveItems: works off the items of a session. Counts one that has ended, and opens as many that wait as its window has
--   room for: each is a child session, whose id this script takes from those it is offered. To all other scripts the
--   effect that works items off is a child, too, whose value is `items`.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix of the effect that works them off   ARGV[2] suffix of an item that has ended ('' for none)
-- ARGV[3] value of its effect   ARGV[4] succeeded | failed | cancelled
-- ARGV[5] n, then n × SHA-256 of what it names   then six numbers, `measures` of the prelude: what it has used   then
--   ids for children to come
-- Returns {'ok', 'open' | 'all' | 'over', then suffix and value of each child that it has opened}: all have ended; more
--   have failed than may | {'stale'}: the effect is closed, and so are its items | {'missing'} | {'ended', status}
local effect, item, value, how = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local states, member = B .. 'item-states:' .. sid, childMember(effect, 'items')
local session = redis.call('HMGET', S, 'status', 'open:' .. effect)
local status = session[1]
if not status or status == 'succeeded' or status == 'failed' or status == 'cancelled' then
  redis.call('ZREM', B .. 'outbox', member)
  return status and { 'ended', status } or { 'missing' }
end

-- Cancels the children of those that are open. Returns how many there were.
local function closeItems()
  local closed = 0
  for _, open in ipairs(openEffects()) do
    if string.sub(open[1], 1, #effect + 1) == effect .. '.' then
      dropEffect(open[1], open[2])
      redis.call('HDEL', S, 'open:' .. open[1], 'rests:' .. open[1])
      redis.call('HSET', states, string.match(open[1], '%d+$'), 'cancelled:' .. string.match(open[2], '^[^:]+'))
      closed = closed + 1
    end
  end
  return closed
end

if session[2] ~= 'items' then
  -- Its machine has gone on without them.
  closeItems()
  redis.call('ZREM', B .. 'outbox', member)
  return { 'stale' }
end

local i, references = 6, tonumber(ARGV[5])
if item ~= '' and redis.call('HGET', S, 'open:' .. item) == value then
  for at = i, i + references - 1 do
    redis.call('SADD', B .. 'references:' .. sid, ARGV[at])
    redis.call('SADD', B .. 'named:' .. ARGV[at], sid)
  end
  redis.call('HDEL', S, 'open:' .. item, 'rests:' .. item)
  redis.call('ZREM', B .. 'outbox', childMember(item, value))
  addUse({ unpack(ARGV, i + references, i + references + 5) })
  redis.call('HSET', states, string.match(item, '%d+$'), how .. ':' .. string.match(value, '^[^:]+'))
  local ends = redis.call('HINCRBY', S, 'items:' .. how, 1)
  for _, other in ipairs({ 'succeeded', 'failed', 'cancelled' }) do
    if other ~= how then ends = ends + (redis.call('HGET', S, 'items:' .. other) or 0) end
  end
  -- Time between two ends: the mean of the first ones, then mostly of the last twenty.
  local known = redis.call('HMGET', S, 'items:pace', 'items:at')
  local pace = known[1] or 0
  redis.call('HSET', S, 'items:pace', pace + (now - known[2] - pace) * math.max(1 / ends, 0.05), 'items:at', now)
end
i = i + references + 6

local plan = redis.call('HMGET', S, 'items:total', 'items:next', 'items:first', 'items:stride', 'items:window', 'items:most', 'items:workflow', 'items:reserve')
local total, next, first, stride, window = tonumber(plan[1]), tonumber(plan[2]), plan[3], plan[4], tonumber(plan[5])
local counts = redis.call('HMGET', S, 'items:succeeded', 'items:failed', 'items:cancelled')
local succeeded, failed, cancelled = tonumber(counts[1] or 0), tonumber(counts[2] or 0), tonumber(counts[3] or 0)
local ended = succeeded + failed + cancelled
local is = ended == total and 'all' or plan[6] and failed > tonumber(plan[6]) and 'over' or 'open'
if is == 'over' then
  cancelled = redis.call('HINCRBY', S, 'items:cancelled', closeItems())
  ended = next
end
local rests = status == 'pausing' or status == 'paused'
local opens, reply = is == 'open' and not rests, { 'ok', is }
if opens and next == ended then redis.call('HSET', S, 'items:at', now) end
while opens and next < total and next - ended < window and ARGV[i] do
  local index = (first + stride * next) % total
  local suffix, child = effect .. '.' .. string.format('%d', index), ARGV[i] .. ':' .. plan[7]
  redis.call('HSET', S, 'open:' .. suffix, child)
  redis.call('HSET', states, string.format('%d', index), 'open:' .. ARGV[i])
  redis.call('ZADD', B .. 'outbox', now + 1000, childMember(suffix, child))
  reply[#reply + 1] = suffix
  reply[#reply + 1] = child
  next, i = next + 1, i + 1
end
local opened = (#reply - 2) / 2
if opened > 0 then
  redis.call('HINCRBY', S, 'items:next', opened)
  -- What its children may need is theirs from now on.
  redis.call('HINCRBY', S, 'reserve', -opened * plan[8])
  redis.call('DECRBY', B .. 'reserved', opened * plan[8])
end
if rests then redis.call('HSET', S, 'rests:' .. effect, redis.call('HGET', S, 'wish')) end
if not rests and (is ~= 'open' or (next < total and next - ended < window)) then
  redis.call('ZADD', B .. 'outbox', now, member)
else
  redis.call('ZREM', B .. 'outbox', member) -- a resume puts it there again
end

local timing = redis.call('HMGET', S, 'items:pace', 'items:told')
local left = timing[1] and string.format(',"etaS":%.1f', (total - ended) * timing[1] / 1000) or ''
local progress = string.format(
  '{"fraction":%.4f,"step":"items","stage":"run"%s,"items":{"total":%d,"waiting":%d,"running":%d,"succeeded":%d,"failed":%d,"cancelled":%d}}',
  ended / total, left, total, total - next, next - ended, succeeded, failed, cancelled
)
redis.call('HSET', S, 'progress', progress)
-- Five frames a second are the most that anybody follows.
if is ~= 'open' or now - (timing[2] or 0) >= 200 then
  redis.call('HSET', S, 'items:told', now)
  redis.call('PUBLISH', B .. 'events:' .. sid, progress)
end
settlePause(status)
return reply
