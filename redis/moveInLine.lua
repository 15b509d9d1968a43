-- moveInLine: gives an open session another priority, or another place in its line. What runs of it goes on.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] priority ('' as it is)   ARGV[2] since when it counts as waiting, ms ('' as it is)
-- Returns {'ok'} | {'missing'} | {'ended', status}
local priority, order = ARGV[1], ARGV[2]
local session = redis.call('HMGET', S, 'status', 'priority', 'order')
local status = session[1]
if not status then return { 'missing' } end
if status == 'succeeded' or status == 'failed' or status == 'cancelled' then return { 'ended', status } end
if priority == '' then priority = session[2] end
if order == '' then order = session[3] or '' end
if priority == session[2] and order == (session[3] or '') then return { 'ok' } end
redis.call('HSET', S, 'priority', priority)
if order ~= '' then redis.call('HSET', S, 'order', order) end
record('"type":"session.reordered","priority":' .. priority)
for _, effect in ipairs(openEffects()) do
  local line = effect[2] == 'step' and redis.call('HGET', stepOf(effect[1]), 'line')
  if line then
    local queue, key, group = string.match(line, '^(%S+) %S+ (%S+) (%S+)')
    leaveLine(effect[1])
    enterLine(effect[1], queue, priority, key, group, order)
  end
  local slot = effect[2] == 'step' and redis.call('HGET', B .. 'slots', memberOf(effect[1]))
  if slot then
    local holder, key, group, state = string.match(slot, '^(%S+) (%S+) (%S+) %S+ (%S+)$')
    holdSlot(effect[1], holder, key, group, priority, state)
  end
end
return { 'ok' }
