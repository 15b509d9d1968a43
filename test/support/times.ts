/** The engine's times in the farms of tests. */
import { productTimes, type Times } from '../../src/engine/times.ts'

/**
 * A fraction of the product's, so that a test of something that is killed does not wait out a lease of 5 s. A lease of a second is as short as
 * a busy machine allows. An outage of Redis needs the product's: a connection comes back after up to a second.
 */
export const quickTimes: Times = {
  ...productTimes,
  leaseMs: 1000,
  renewMs: 300,
  leaseSweepMs: 250,
  outageMs: 400,
  affinityMs: 400,
  claimMs: 1000,
  timerClaimMs: 1000,
  queuedMs: 1000,
  affinityLookMs: 250,
  nowhereMs: 250,
  insistMs: 200,
}

/** How long after an outage, or its own start, a process may still declare no lease dead: its first grace, and the sweep that ends it. */
export const graceMs = ({ leaseMs, leaseSweepMs }: Times): number => leaseMs + leaseSweepMs
