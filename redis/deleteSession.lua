-- deleteSession: removes an ended session and its records. Its artifacts lose a reference; the collector removes what
--   no session names.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] whether its idempotency record stays until its own time is over ('' or '1')   ARGV further: index names
--   (`workflow:…`, `tag:…`, `key:…`)
-- Returns {'ok'} | {'missing'} | {'not_ended', status} | {'untold'}: its parent has yet to be told of its end, or what
--   it has done has yet to be undone
local session = redis.call('HMGET', S, 'status', 'idempotency', 'tags')
local status = session[1]
if not status then return { 'missing' } end
if status ~= 'succeeded' and status ~= 'failed' and status ~= 'cancelled' then return { 'not_ended', status } end
for _, kind in ipairs({ 'parent:', 'undo:' }) do
  if redis.call('ZSCORE', B .. 'outbox', kind .. sid) then return { 'untold' } end
end
redis.call('ZREM', B .. 'index:all', sid)
redis.call('ZREM', B .. 'index:ended', sid)
redis.call('ZREM', B .. 'index:status:' .. status, sid)
for i = 2, #ARGV do redis.call('ZREM', B .. 'index:' .. ARGV[i], sid) end
-- They may have changed since the caller has read them.
for _, tag in ipairs(cjson.decode(session[3])) do redis.call('ZREM', B .. 'index:tag:' .. tag, sid) end
for _, sha in ipairs(redis.call('SMEMBERS', B .. 'references:' .. sid)) do redis.call('SREM', B .. 'named:' .. sha, sid) end
if session[2] and ARGV[1] == '' then redis.call('DEL', session[2]) end
redis.call('DEL', S, B .. 'history:' .. sid, B .. 'references:' .. sid, B .. 'scratch:' .. sid, B .. 'inbox:' .. sid, B .. 'preview:' .. sid,
  B .. 'items:' .. sid, B .. 'item-states:' .. sid)
redis.call('PUBLISH', B .. 'events:' .. sid, '')
return { 'ok' }
