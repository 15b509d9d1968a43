/**
 * The catalogue of scenarios in docs/reliability.md: an event in a farm, the promise for it, and the tests that prove
 * it. A proof names a test file under `test/` and the beginning of one test's name; a test of the document checks every
 * proof against the files.
 */
export type Proof = readonly [file: string, begins: string]

interface Told {
  /** Unique and stable: other pages may name it. */
  name: string
  happens: string
  promised: string
}
export type Scenario = Told & ({ proofs: readonly [Proof, ...Proof[]] } | { notCovered: string })

const restarted: Proof = ['long/restarts', 'all workers killed']
const api: Proof = ['long/restarts', 'the API killed']
const everything: Proof = ['long/restarts', 'everything killed']
const release: Proof = ['long/deploy', 'a release rolls over']
const points: Proof = ['long/points', 'SIGKILL at …']
const walk: Proof = ['long/line', 'cut between any two commands']

export const scenarios: readonly Scenario[] = [
  // Processes that die and come back.
  {
    name: 'step-killed',
    happens: 'a worker dies in the second of three steps',
    promised: 'the first step runs once, the second is tried again, the third runs once',
    proofs: [restarted],
  },
  {
    name: 'child-killed',
    happens: 'the Python child dies during a step; its worker lives',
    promised: 'the step is tried again in a new child; the broken one is never used again',
    proofs: [
      ['long/child', 'that dies is replaced'],
      ['long/child-faults', 'hangs with a heartbeat'],
    ],
  },
  {
    name: 'result-then-death',
    happens: 'the child sends its result and dies at once',
    promised: 'the result is recorded once; the next step runs in a fresh child',
    proofs: [['long/child-faults', 'sends its result and dies']],
  },
  {
    name: 'timer-due-while-down',
    happens: 'a timer falls due while no process runs',
    promised: 'it fires once, when a process runs again, never early',
    proofs: [everything],
  },
  {
    name: 'fleet-restarted',
    happens: 'all processes are started again while sessions wait, without a request from a client',
    promised: 'due sessions continue by themselves',
    proofs: [everything],
  },
  {
    name: 'boot-beside-work',
    happens: 'a worker starts and sweeps while another worker runs a step for longer than a lease',
    promised: 'the step runs once',
    proofs: [api],
  },
  {
    name: 'poison',
    happens: 'a step kills every worker that runs it',
    promised: 'after five leases without progress the session fails with the evidence; other sessions are not affected',
    proofs: [['engine/quarantine', 'without progress']],
  },
  {
    name: 'between-two-writes',
    happens: 'a process dies between storing a result and adding the job of the next step, or at any other crash point',
    promised: 'exactly one job follows; the session ends once, with the right result',
    proofs: [points, ['long/queues', 'a job whose worker died']],
  },
  {
    name: 'drain',
    happens: 'SIGTERM in the middle of a long step',
    promised:
      'the step is released with a checkpoint at its next call, the worker takes no more steps, the process ends within its time limit',
    proofs: [
      ['long/worker-death', 'SIGTERM at call 5'],
      ['long/role', 'SIGTERM: it drains'],
    ],
  },
  {
    name: 'rolling-restart',
    happens: 'eight workers and two APIs are restarted one by one, each under its old name, while 200 sessions run',
    promised: 'no step is lost, taken from a draining worker, or run twice',
    proofs: [release],
  },
  {
    name: 'api-restarted',
    happens: 'the API is gone while a timer, a step and a child run',
    promised: 'the timer is on time, no step starts a second time, the parent receives the result of its child',
    proofs: [api, ['api/restart', 'kill -9 in the middle of a stream']],
  },
  {
    name: 'child-session-killed',
    happens:
      'the worker of a child session dies; or the API between parent and child; or all processes while a parent or child waits for a signal',
    promised: 'the parent receives the result of each child once; signals still reach their session',
    proofs: [restarted, api, everything],
  },
  // Late and repeated messages.
  {
    name: 'zombie',
    happens: 'a worker freezes for longer than its lease, another takes over, and the first continues',
    promised: 'no late write of the first worker changes anything',
    proofs: [
      ['long/worker-death', 'SIGSTOP beyond its lease'],
      ['engine/fence', '… changes nothing and tells nobody'],
    ],
  },
  {
    name: 'blocked-process',
    happens: 'a step blocks its whole process for longer than its lease',
    promised: 'another worker runs it and the late result is discarded; a worker that loses three sessions in a row takes no more steps',
    proofs: [['long/queues', 'a worker that lost attempts']],
  },
  {
    name: 'command-blocks',
    happens: 'a command on device memory blocks its worker for longer than its lease',
    promised:
      'the command is aborted on return and its result discarded; its reservation and its allocation are freed, and the worker continues',
    proofs: [['long/commands', 'goes when a call of a command blocks']],
  },
  {
    name: 'two-results',
    happens: 'two results of one step arrive at the same time',
    promised: 'exactly one is recorded',
    proofs: [
      ['engine/race', 'two results'],
      ['engine/race', 'a result of each of two attempts'],
    ],
  },
  {
    name: 'failure-beside-success',
    happens: 'an old attempt fails on one worker while its successor succeeds on another',
    promised: 'the session continues with the success',
    proofs: [['engine/race', 'an attempt that fails here']],
  },
  {
    name: 'lost-wake',
    happens: 'the message that announces an event is lost',
    promised: 'a follower of the session receives the event within about a second, once',
    proofs: [
      ['api/events', 'a lost wake is made up for'],
      ['long/events', 'progress never falls'],
    ],
  },
  {
    name: 'lease-lost-in-step',
    happens: 'a lease is lost in the middle of a step',
    promised: 'that step may run twice, the next step runs once',
    proofs: [restarted],
  },
  {
    name: 'one-key-many-times',
    happens: 'fifty submissions with one idempotency key at once, and one long after the session was removed',
    promised: 'one session',
    proofs: [
      ['long/lanes', 'fifty submissions at once'],
      ['long/retention', 'an idempotency key outlives its session'],
    ],
  },
  {
    name: 'one-key-two-bodies',
    happens: 'the same idempotency key with another body',
    promised: '422, and no second session',
    proofs: [['api/sessions', 'a repeat with the same Idempotency-Key']],
  },
  // Redis and the line to it.
  {
    name: 'long-outage',
    happens: 'Redis is away for three times as long as an idle worker waits for a job',
    promised: 'each worker, idle or busy, takes work on both lanes within 10 s after Redis is back',
    proofs: [['long/redis-away', 'killed under load for three times']],
  },
  {
    name: 'outage-after-outage',
    happens: 'Redis is killed again and again while sessions are submitted and run, two thousand of them in sequence',
    promised: 'each accepted session ends once',
    proofs: [
      ['long/redis-outage', 'killed while sessions are submitted'],
      ['long/sequence', 'gone every 5 to 10 s'],
    ],
  },
  {
    name: 'cut-between-commands',
    happens: 'the connection to Redis is cut between any two commands of a session',
    promised: 'the session ends like an undisturbed one',
    proofs: [walk],
  },
  {
    name: 'executed-and-unheard',
    happens: 'Redis executes 5 % of all writes, and their answers are lost',
    promised: 'no step is repeated, no session is lost',
    proofs: [['long/line', '5 % of all writes executed']],
  },
  {
    name: 'cut-at-commit',
    happens: 'the connection breaks at the commit of a step',
    promised: 'the attempt finds the recorded result and does not record it again',
    proofs: [walk, points],
  },
  {
    name: 'redis-killed',
    happens: 'Redis is killed in the middle of submissions',
    promised: 'no session that had its 2xx is lost, with either durability setting',
    proofs: [
      ['long/durability', '…: Redis killed in the middle'],
      ['long/redis-server', 'kill -9 loses nothing that was answered'],
    ],
  },
  {
    name: 'bad-line',
    happens: 'for five minutes random commands are delayed by 200 ms, and 5 % are cut or dropped',
    promised: 'every accepted session ends in bounded time afterwards; a run with too few faults counts as failed',
    proofs: [['long/line', 'slow by 200 ms']],
  },
  {
    name: 'wrong-clock',
    happens: "a worker's clock is an hour ahead, or jumps back by an hour; Redis' clock is set by an hour, back or ahead",
    promised: 'no timer is early or late, no lease is stolen or lost, and a killed worker is made up for in its time',
    proofs: [
      ['long/clock', 'no living worker loses a step'],
      ['long/clock', 'a timer and a deadline fall due'],
      ['long/queues', 'a worker whose clock is an hour ahead'],
      ['long/queues', 'clocks that jump back'],
    ],
  },
  {
    name: 'shutdown-without-redis',
    happens: 'a process receives SIGTERM while Redis is away',
    promised: 'it ends within its time limit',
    proofs: [
      ['long/redis-away', 'away at shutdown'],
      ['long/role', 'SIGTERM: it drains'],
    ],
  },
  // Pause, resume, cancel.
  {
    name: 'cancel-anywhere',
    happens:
      'cancel of a session that is queued, just taken, running, in a delay, in a back-off, pausing, paused, or waiting for a signal or a child',
    promised: 'the session and its children are cancelled once, its lane is free, none of its steps runs again',
    proofs: [
      ['crash/interrupts', 'cancelled …'],
      ['long/lanes', 'a queued session is paused at once'],
      ['long/control', 'cancel before the last result'],
    ],
  },
  {
    name: 'pause-a-step',
    happens: 'pause while a step runs on the device',
    promised: '`paused` only when the device is free and the checkpoint is stored',
    proofs: [['long/control', 'paused means that no child holds a tensor']],
  },
  {
    name: 'pause-in-queue',
    happens: 'pause and resume while the step is in its queue',
    promised: 'the step does not get stuck, and runs once',
    proofs: [['long/lanes', 'a queued session is paused at once']],
  },
  {
    name: 'pause-in-back-off',
    happens: 'pause while a failed step waits for its next try',
    promised: 'no try during the pause, one after the resume',
    proofs: [['crash/interrupts', 'paused in the back-off']],
  },
  {
    name: 'signals-while-paused',
    happens: 'three signals to a paused session, each sent twice',
    promised: 'applied in order after the resume, each once',
    proofs: [['crash/interrupts', 'told three signals']],
  },
  {
    name: 'pause-twice',
    happens: 'pause, and pause again',
    promised: 'the same as once',
    proofs: [['long/control', 'pausing twice is once']],
  },
  {
    name: 'pause-here-resume-there',
    happens: 'paused on one worker, which is killed; resumed on another',
    promised: 'it continues at the next call, and the picture has the same bytes',
    proofs: [restarted, ['long/exactness', 'paused, then everything killed']],
  },
  {
    name: 'pause-over-a-release',
    happens: 'paused, a new version of its workflow is rolled out, resumed',
    promised: 'it continues under the version it began with',
    proofs: [release],
  },
  // Structure, queues, releases.
  {
    name: 'child-fails-for-ever',
    happens: 'a child session fails at every try',
    promised: 'the parent ends as its workflow says, failed or without the child; it never hangs',
    proofs: [
      ['crash/interrupts', 'a child that fails for ever'],
      ['crash/interrupts', 'a child that somebody cancels'],
    ],
  },
  {
    name: 'priorities',
    happens: 'sessions of mixed priorities, some without one',
    promised:
      'higher priority first, then older first; no priority counts as the middle one; sessions that have begun come before new ones',
    proofs: [['long/lanes', 'the higher priority goes first']],
  },
  {
    name: 'two-releases',
    happens: 'two releases run side by side under load, and some processes lack a version',
    promised: 'all sessions end, no process logs an error',
    proofs: [release, ['long/queues', 'a worker without the version']],
  },
  {
    name: 'takes-nothing',
    happens: 'a worker publishes its record and takes no step although jobs wait',
    promised: 'it becomes `stalled`, readiness fails with the reason, and it is ready again when it takes work',
    proofs: [['long/lanes', 'a worker that takes nothing']],
  },
  {
    name: 'random-programs',
    happens: 'random workflow programs under random faults',
    promised: 'each has the result computed beforehand; none stays without progress beyond the time limit',
    proofs: [['long/verifier', 'random programs with seed …']],
  },
  {
    name: 'many-clients',
    happens: 'several clients submit, pause, resume, cancel, signal and look at the same session at once, under random faults',
    promised: 'one order of all that they asked explains all that they were answered',
    proofs: [['long/linear', 'four clients of each session']],
  },
  // Many sessions, and who comes when.
  {
    name: 'batch-of-fifty',
    happens: 'one of fifty children of a batch fails for ever',
    promised: 'the batch ends as its policy says: fail, ignore or partial',
    proofs: [['engine/items', 'that fail are passed over, or end the batch']],
  },
  {
    name: 'fair-share',
    happens: 'one API key queues ten thousand sessions, another key a single one',
    promised: 'the single session starts within a few steps, and the ten thousand do not starve',
    proofs: [['engine/admission', 'a key with one session comes second at the latest']],
  },
  {
    name: 'concurrency-limit',
    happens: 'the holder of the only slot of a concurrency limit dies',
    promised: 'the slot is free within the bound; a session between two steps holds none',
    proofs: [['engine/admission', 'a concurrency limit of one']],
  },
  {
    name: 'fork',
    happens: 'a session is forked from a recorded state with changed input',
    promised: 'steps before that state are reused, those after it run, the old session does not change',
    proofs: [
      ['engine/fork', 'with a changed input parts at'],
      ['engine/fork', 'of each state of the examples'],
    ],
  },
  {
    name: 'schedule',
    happens: 'a schedule falls due while its processes die, or several look at once',
    promised: 'one run for each instant',
    proofs: [
      ['engine/schedules', 'starts a session at each of its instants'],
      ['engine/schedules', 'whose process dies at …'],
    ],
  },
  // What follows from one fault, over all domains.
  {
    name: 'device-lost',
    happens: 'the driver loses a device in the middle of a step',
    promised: 'its memory and its models are written off, its steps move and go on from their checkpoints, its commands fail',
    proofs: [
      ['long/cascades', 'from a lost device'],
      ['long/commands', 'goes with its worker'],
    ],
  },
  {
    name: 'out-of-memory',
    happens: 'a device runs out of memory in the middle of a step',
    promised:
      'the child goes down its ladder and begins again (python/tests/test_memory.py, test_profiles.py; smaller tiles in test_upscaling.py), then another device goes on, three tries at most, then a failure with its own code',
    proofs: [['long/cascades', 'from memory that runs out']],
  },
  {
    name: 'corrupt-model',
    happens: 'a worker finds the bytes of a model broken whose headers are whole',
    promised: 'its session fails at once and in words; the model is quarantined until it is another one or was read whole',
    proofs: [['long/cascades', 'from a broken model']],
  },
  {
    name: 'inference-fails',
    happens: 'the inference of a session that is to be postprocessed fails for good',
    promised: 'no postprocessing begins, and nothing is held of it',
    proofs: [['long/cascades', 'from an inference that fails']],
  },
  {
    name: 'postprocessing-fails',
    happens: 'the postprocessing of a picture fails for good',
    promised: 'the picture that was drawn is kept, and a retry goes on behind it',
    proofs: [['long/cascades', 'from a postprocessing that fails']],
  },
]
