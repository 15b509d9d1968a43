/**
 * The catalogue of scenarios in docs/reliability.md: what may happen to a farm, what is promised then, and the tests that prove it. A proof
 * names a test file under `test/` and how the name of one of its tests begins; a test of the document holds every proof against the files.
 */
export type Proof = readonly [file: string, begins: string]

interface Told {
  /** Of its own, and lasting: other pages may name it. */
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
    promised: 'the first step is not run again, the second once more, the third once',
    proofs: [restarted],
  },
  {
    name: 'child-killed',
    happens: 'only the Python child dies under a step',
    promised: 'the step is tried again in a new child; the broken one is never used again',
    proofs: [
      ['workers/python/supervisor', 'that dies is replaced'],
      ['crash/child-faults', 'hangs with a heartbeat'],
    ],
  },
  {
    name: 'result-then-death',
    happens: 'the child sends its result and dies at once',
    promised: 'the result is recorded once; the next step runs in a fresh child',
    proofs: [['crash/child-faults', 'sends its result and dies']],
  },
  {
    name: 'timer-due-while-down',
    happens: 'a timer falls due while nothing runs',
    promised: 'it fires when something runs again: never early, and once',
    proofs: [everything],
  },
  {
    name: 'fleet-restarted',
    happens: 'everything is started again while sessions wait; nobody asks for anything',
    promised: 'what is due goes on by itself',
    proofs: [everything],
  },
  {
    name: 'boot-beside-work',
    happens: 'a worker boots and sweeps while another one runs a step for longer than a lease',
    promised: 'the step runs once',
    proofs: [api],
  },
  {
    name: 'poison',
    happens: 'a step takes every worker with it that runs it',
    promised: 'after five leases without progress the session fails with the evidence; its neighbours are not touched',
    proofs: [['engine/quarantine', 'without progress']],
  },
  {
    name: 'between-two-writes',
    happens: 'a process dies between a result that is stored and the job of the next step, or at any other place between two writes',
    promised: 'exactly one job follows; the session ends once, with the right result',
    proofs: [points, ['crash/queues', 'a job whose worker died']],
  },
  {
    name: 'drain',
    happens: 'SIGTERM in the middle of a long step',
    promised: 'the step is handed over from its checkpoint at its next call, nothing new is taken, the process ends within its bound',
    proofs: [
      ['crash/worker-death', 'SIGTERM at call 5'],
      ['crash/role', 'SIGTERM: it drains'],
    ],
  },
  {
    name: 'rolling-restart',
    happens: 'eight workers and two APIs are restarted one by one under 200 sessions, each under its old name',
    promised: 'no step is lost, reclaimed from a worker that drains, or run twice',
    proofs: [release],
  },
  {
    name: 'api-restarted',
    happens: 'the API is gone while a timer, a step and a child run',
    promised: 'the timer is on time, no step is started a second time, the parent is told',
    proofs: [api, ['api/restart', 'kill -9 in the middle of a stream']],
  },
  {
    name: 'child-session-killed',
    happens:
      'the worker of a child session dies; or the API between parent and child; or everything while a parent or child waits for a signal',
    promised: 'the parent has the result of each child once; signals still find whom they are for',
    proofs: [restarted, api, everything],
  },
  // Late and doubled words.
  {
    name: 'zombie',
    happens: 'a worker freezes beyond its lease, another takes over, and it thaws',
    promised: 'none of its writes changes anything, whichever it is',
    proofs: [
      ['crash/worker-death', 'SIGSTOP beyond its lease'],
      ['engine/fence', '… changes nothing and tells nobody'],
    ],
  },
  {
    name: 'blocked-process',
    happens: 'a step blocks its whole process for longer than its lease',
    promised: 'another worker runs it, the late result is discarded, and a worker that does so three times in a row takes nothing more',
    proofs: [['crash/queues', 'a worker that lost attempts']],
  },
  {
    name: 'command-blocks',
    happens: 'a call of a command on device memory lets its worker do nothing else for longer than its lease',
    promised: 'it is aborted on return and its result discarded; what it held and what it made is freed, and the worker goes on',
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
    happens: 'an attempt fails here while the one that followed it succeeds there',
    promised: 'the session goes on with the success',
    proofs: [['engine/race', 'an attempt that fails here']],
  },
  {
    name: 'lost-wake',
    happens: 'the message that tells of an event is lost',
    promised: 'who follows the session has the event within about a second, once',
    proofs: [
      ['api/events', 'a lost wake is made up for'],
      ['crash/events', 'progress never falls'],
    ],
  },
  {
    name: 'lease-lost-in-step',
    happens: 'a lease is lost in the middle of a step',
    promised: 'that step may run twice, the next one runs once',
    proofs: [restarted],
  },
  {
    name: 'one-key-many-times',
    happens: 'fifty submissions with one idempotency key at once, and one long after the session is gone',
    promised: 'one session',
    proofs: [
      ['long/lanes', 'fifty submissions at once'],
      ['engine/retention', 'an idempotency key outlives its session'],
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
    happens: 'Redis is gone for three times the time that an idle worker waits for a job',
    promised: 'each worker, idle or busy, takes work on both lanes within 10 s after it is back',
    proofs: [['crash/redis-away', 'killed under load for three times']],
  },
  {
    name: 'outage-after-outage',
    happens: 'Redis is killed again and again while sessions are submitted and run, two thousand of them one after another',
    promised: 'each accepted session ends once',
    proofs: [
      ['crash/redis-outage', 'killed while sessions are submitted'],
      ['long/sequence', 'gone every 5 to 10 s'],
    ],
  },
  {
    name: 'cut-between-commands',
    happens: 'the connection is cut between any two commands of a session',
    promised: 'it ends as the undisturbed one does',
    proofs: [walk],
  },
  {
    name: 'executed-and-unheard',
    happens: '5 % of all writes are executed and their answers lost',
    promised: 'no step is doubled, no session is lost',
    proofs: [['long/line', '5 % of all writes executed']],
  },
  {
    name: 'cut-at-commit',
    happens: 'the connection breaks at the commit of a step',
    promised: 'what was recorded is found, and not recorded again',
    proofs: [walk, points],
  },
  {
    name: 'redis-killed',
    happens: 'Redis is killed in the middle of submissions',
    promised: 'no session that had its 2xx is lost, in either durability',
    proofs: [
      ['crash/durability', '…: Redis killed in the middle'],
      ['redis-server', 'kill -9 loses nothing that was answered'],
    ],
  },
  {
    name: 'bad-line',
    happens: 'for five minutes 200 ms of delay here and there, with 5 % of commands cut or dropped',
    promised: 'all that was accepted ends in bounded time after it; a run with too few faults counts as failed',
    proofs: [['long/line', 'slow by 200 ms']],
  },
  {
    name: 'wrong-clock',
    happens: "a worker's clock is an hour ahead, or jumps back by one",
    promised: 'no timer is early, no lease is stolen or lost',
    proofs: [
      ['crash/queues', 'a worker whose clock is an hour ahead'],
      ['crash/queues', 'clocks that jump back'],
    ],
  },
  {
    name: 'shutdown-without-redis',
    happens: 'a process is asked to end while Redis is away',
    promised: 'it ends within its bound',
    proofs: [
      ['crash/redis-away', 'away at shutdown'],
      ['crash/role', 'SIGTERM: it drains'],
    ],
  },
  // Pause, resume, cancel.
  {
    name: 'cancel-anywhere',
    happens:
      'cancel of a session that is queued, just fetched, running, in a delay, in a back-off, pausing or paused, or waits for a signal or a child',
    promised: 'it is cancelled once and its children with it, its lane is free, nothing of it runs again',
    proofs: [
      ['crash/interrupts', 'cancelled …'],
      ['long/lanes', 'a queued session is paused at once'],
      ['crash/control', 'cancel before the last result'],
    ],
  },
  {
    name: 'pause-a-step',
    happens: 'pause while a step runs on the device',
    promised: '`paused` only when the device is free and the checkpoint is stored',
    proofs: [['crash/control', 'paused means that no child holds a tensor']],
  },
  {
    name: 'pause-in-queue',
    happens: 'pause and resume while the step is in its queue',
    promised: 'it is not stuck, and runs once',
    proofs: [['long/lanes', 'a queued session is paused at once']],
  },
  {
    name: 'pause-in-back-off',
    happens: 'pause while a failed step waits for its next try',
    promised: 'no try while paused, one after',
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
    proofs: [['crash/control', 'pausing twice is once']],
  },
  {
    name: 'pause-here-resume-there',
    happens: 'paused on one worker, which is killed; resumed on another',
    promised: 'it goes on at its call, and the picture is the same to the byte',
    proofs: [restarted, ['e2e/exactness', 'paused, then everything killed']],
  },
  {
    name: 'pause-over-a-release',
    happens: 'paused, a new version of its workflow is rolled out, resumed',
    promised: 'it goes on under the version it began with',
    proofs: [release],
  },
  // Structure, queues, releases.
  {
    name: 'child-fails-for-ever',
    happens: 'a child session fails at every try',
    promised: 'the parent ends as its workflow says, failed or going on without it; it never hangs',
    proofs: [
      ['crash/interrupts', 'a child that fails for ever'],
      ['crash/interrupts', 'a child that somebody cancels'],
    ],
  },
  {
    name: 'priorities',
    happens: 'sessions of mixed priorities, some without one',
    promised: 'the higher first, of equals the older, none given is the middle; what has begun goes on before them',
    proofs: [['long/lanes', 'the higher priority goes first']],
  },
  {
    name: 'two-releases',
    happens: 'two releases run side by side under load, and processes that lack a version',
    promised: 'all sessions end, no process logs an error',
    proofs: [release, ['crash/queues', 'a worker without the version']],
  },
  {
    name: 'takes-nothing',
    happens: 'a worker publishes itself and takes nothing while jobs wait',
    promised: 'it is `stalled`, readiness fails and says why, and it is ready again when it takes work',
    proofs: [['long/lanes', 'a worker that takes nothing']],
  },
  {
    name: 'random-programs',
    happens: 'random workflow programs under random faults',
    promised: 'each comes to what was worked out beforehand; none rests without progress beyond the bound',
    proofs: [['long/verifier', 'random programs with seed …']],
  },
  // What there is nothing of yet.
  {
    name: 'batch-of-fifty',
    happens: 'one of fifty children of a batch fails for ever',
    promised: 'the batch ends as its policy says: fail, ignore or partial',
    notCovered: 'there are child sessions, but no workflow `batch` yet',
  },
  {
    name: 'fair-share',
    happens: 'one API key queues ten thousand sessions, another one',
    promised: 'the one starts within a few steps, and the many do not starve',
    notCovered: 'lanes know priorities and age, not API keys',
  },
  {
    name: 'concurrency-limit',
    happens: 'the holder of the only slot of a concurrency limit dies',
    promised: 'the slot is free within the bound; a session between two steps holds none',
    notCovered: 'there are no limits of concurrency yet',
  },
  {
    name: 'fork',
    happens: 'a session is forked from a recorded state with changed input',
    promised: 'steps before it are reused, those after it run, the old session is not touched',
    notCovered: 'there is `retry` (tested above), no fork yet',
  },
  {
    name: 'schedule',
    happens: 'a schedule ticks on five workers while the line to Redis is cut',
    promised: 'one run for each tick',
    notCovered: 'there are no schedules yet',
  },
  {
    name: 'out-of-memory',
    happens: 'a device runs out of memory in the middle of a step',
    promised: 'tried again by another plan, a bounded number of times, then a failure with its own code',
    notCovered: 'the child has no code for it yet, so there is no other plan to try',
  },
]
