-- settleChild: a child has followed a control revision of its parent, so its entry leaves the outbox; unless there is
--   another revision by now.
-- Uses: prelude
-- KEYS[1] parent session
-- ARGV[1] suffix of the child's effect   ARGV[2] value of the effect   ARGV[3] the revision it followed, '' when it was
--   cancelled   ARGV[4] whether it rests ('' or '1')
-- Returns {'ok'} | {'again'}
local suffix, child, revision, rests = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local member = childMember(suffix, child)
local session = redis.call('HMGET', S, 'open:' .. suffix, 'wish', 'status')
local wanted = session[1] and (session[2] or '0') or ''
if wanted ~= revision then
  redis.call('ZADD', B .. 'outbox', now, member)
  return { 'again' }
end
redis.call('ZREM', B .. 'outbox', member)
-- A parent that was deleted must not come back as a hash of one field.
if rests ~= '' and session[1] then
  redis.call('HSET', S, 'rests:' .. suffix, revision)
  settlePause(session[3])
end
return { 'ok' }
