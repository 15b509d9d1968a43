/** The device a worker owns. Owns: what it can do, how it is, its caches. Never touches: allocations, models on disk, sessions. */
import './errors.ts'
import { operation } from '../operation.ts'
import type { Target } from '../values.ts'
import { optimize, refresh } from './operations.ts'
import { OptimizeInput, OptimizeOutput, RefreshInput, RefreshOutput } from './schema.ts'

const control = { lane: 'control', attempts: 1, timeoutMs: 60_000, needs: ({ target }: { target: Target }) => ({ target }) } as const

export const device = {
  'device.optimize': operation({ ...control, run: optimize, input: OptimizeInput, output: OptimizeOutput }),
  'device.refresh': operation({ ...control, run: refresh, input: RefreshInput, output: RefreshOutput }),
}
