-- endSession: ends a session from outside its machine: its deadline passed, its workflow is broken.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] error, JSON   ARGV[2] suffix of the timer that must still be open ('' for none)
-- Returns {'ok'} | {'stale'}: that timer is not open, or was put off meanwhile |
--   {'missing'} | {'ended', status}
local error, timer = ARGV[1], ARGV[2]
local session = redis.call('HMGET', S, 'status', 'open:' .. timer, 'left:' .. timer, 'snapshot')
local status = session[1]
if not status then return { 'missing' } end
if status == 'succeeded' or status == 'failed' or status == 'cancelled' then return { 'ended', status } end
if timer ~= '' then
  -- One that was claimed is due, whatever its claim lasts.
  local due = redis.call('ZSCORE', B .. 'timers', memberOf(timer))
  if not session[2] or session[3] or (due and due % 1 == 0 and tonumber(due) > now) then return { 'stale' } end
end
redis.call('HSET', S, 'before', session[4])
finish(status, 'failed', 'error', error, '"type":"session.failed","error":' .. error)
return { 'ok' }
