/**
 * Crash points: a name for every place between two durable writes, and between a durable write and its effect. Each act
 * on a session is one script, with a point before it is sent and one after its answer; the other points stand beside
 * what is written elsewhere: queues and bytes. An engine may be given a hook, as tests do to end the process there; the
 * product passes none, and then a point costs nothing.
 */

/** Scripts under `redis/` that write a session, by the act they are. */
export const acts = {
  createSession: 'create',
  commitTransition: 'commit',
  controlSession: 'control',
  grantApproval: 'grant',
  changeSession: 'change',
  endSession: 'end',
  deleteSession: 'delete',
  settleChild: 'settle',
  moveItems: 'items',
  takeStep: 'take',
  renewLease: 'renew',
  reportProgress: 'progress',
  recordCheckpoint: 'checkpoint',
  noteStep: 'note',
  releaseStep: 'release',
  retryStep: 'retry',
  expireLease: 'expire',
  placeStep: 'place',
  markWaiting: 'wait',
  joinLine: 'join',
  admitStep: 'admit',
  withdrawStep: 'withdraw',
  moveInLine: 'move',
  askYield: 'yield',
} as const

const effects = [
  // The step is open, its job is not in a queue yet; it is, and no worker is woken.
  'dispatch.before',
  'dispatch.after',
  // The operation has ended, the engine is not told; its result is committed and what follows dispatched, its job is
  // not finished.
  'deliver.before',
  'deliver.after',
  // Bytes are made, not stored; they are stored, and nothing names them.
  'artifact.before',
  'artifact.after',
  // A due entry is claimed by this process, and nothing done about it.
  'outbox.before',
  'timer.before',
  'inbox.before',
  // A webhook is about to be told of an end; it was told, and that is not recorded.
  'webhook.before',
  'webhook.after',
  // A schedule that is due is claimed, and nothing decided; its session is made, and that is not recorded. Both name
  // the schedule in place of a session.
  'schedule.before',
  'schedule.started',
  // An action over many sessions is about to be applied to some of them; it was, and that is not recorded. Both name
  // the action in place of a session.
  'bulk.before',
  'bulk.after',
  // A child's end is in its parent, and still to be told by the outbox.
  'parent.told',
] as const

export type Script = keyof typeof acts
export type Point = `${(typeof acts)[Script]}.${'before' | 'after'}` | (typeof effects)[number]

/** Every point there is. */
export const points: readonly Point[] = [...Object.values(acts).flatMap((act) => [`${act}.before`, `${act}.after`] as const), ...effects]

/** Called at each point with the session it is about. */
export type AtPoint = (point: Point, sessionId: string) => void
