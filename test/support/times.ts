/** The engine's times in the farms of tests. */
import { productTimes, type Times } from '../../src/engine/times.ts'

/** A lease of two seconds, which a busy machine can still keep, and over which a connection comes back. */
const share = 0.4

/**
 * A share of the product's, for all farms but few: what waits for a lease waits less. worker-death.test.ts keeps those
 * of the product because it is about them, other runs of test/long and the verifier because they load the machine, and
 * farms that draw real pictures because these do.
 */
export const quickTimes = Object.fromEntries(
  Object.entries(productTimes).map(([name, ms]) => [name, Math.round(Number(ms) * share)]),
) as unknown as Times

/**
 * How long a process that has started, or that Redis has come back to, declares no lease dead; with the sweep that does
 * it then.
 */
export const graceMs = ({ leaseMs, leaseSweepMs }: Times): number => leaseMs + leaseSweepMs
