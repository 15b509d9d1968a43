/**
 * How long the engine waits for what, ms: declared once, handed to everything that waits. The product runs on these; a
 * test may run its farm on a fraction of them. They hold together: a lease outlives several renewals, and an outage of
 * Redis is noticed well before a lease ends.
 */
export interface Times {
  /** How long a lease lasts without a renewal, and how often it is renewed. */
  leaseMs: number
  renewMs: number
  /** Pause between two sweeps, and between two looks at the leases. */
  sweepMs: number
  leaseSweepMs: number
  /** Redis was away when an answer took this long. */
  outageMs: number
  /** How long an affinity dispatch may wait for its worker. */
  affinityMs: number
  /** How long a command is valid without having been taken. */
  commandMs: number
  /** How long a due entry is one sweep's own. */
  claimMs: number
  timerClaimMs: number
  /**
   * When the sweep looks again at a step: its job lies in a queue of a class, of one worker, in a crowd of entries; no
   * worker can run it.
   */
  queuedMs: number
  affinityLookMs: number
  crowdedMs: number
  nowhereMs: number
  /** When a step is placed again whose model its worker did not have after all. */
  missingMs: number
  /** How often an attempt repeats what Redis did not take. */
  insistMs: number
  /** How long a try to tell a webhook takes at most; its delivery is nobody else's for twice as long. */
  webhookTryMs: number
  /** Between two looks at everything in the model folders: of what no watch tells. */
  rescanMs: number
}

export const productTimes: Times = {
  leaseMs: 5000,
  renewMs: 1500,
  sweepMs: 250,
  leaseSweepMs: 1000,
  outageMs: 1000,
  affinityMs: 2000,
  commandMs: 10_000,
  claimMs: 2000,
  timerClaimMs: 5000,
  queuedMs: 5000,
  affinityLookMs: 500,
  crowdedMs: 30_000,
  nowhereMs: 1000,
  missingMs: 1000,
  insistMs: 500,
  webhookTryMs: 15_000,
  rescanMs: 60_000,
}
