/**
 * Memory of a device, held through the native addon. Owns: allocations, copies, what they press on. Never touches: models, pictures, sessions.
 * Everything here lives in one worker and ends with its device epoch, so every step is a command to that worker.
 */
import './errors.ts'
import { operation } from '../operation.ts'
import type { Target } from '../values.ts'
import { allocate, checksum, copy, defragment, read, release, renew, write } from './operations.ts'
import {
  AllocateInput,
  AllocationView,
  ChecksumInput,
  ChecksumOutput,
  CopyInput,
  CopyOutput,
  DefragmentInput,
  DefragmentOutput,
  ReadInput,
  ReadOutput,
  ReleaseInput,
  ReleaseOutput,
  RenewInput,
  WriteInput,
  WriteOutput,
} from './schema.ts'

const short = { lane: 'control', attempts: 1, timeoutMs: 60_000, needs: ({ target }: { target: Target }) => ({ target }) } as const
const long = { ...short, timeoutMs: 3_600_000 } as const

export const memory = {
  'memory.allocate': operation({ ...short, run: allocate, input: AllocateInput, output: AllocationView }),
  'memory.release': operation({ ...short, run: release, input: ReleaseInput, output: ReleaseOutput }),
  'memory.renew': operation({ ...short, run: renew, input: RenewInput, output: AllocationView }),
  'memory.copy': operation({ ...long, run: copy, input: CopyInput, output: CopyOutput }),
  'memory.checksum': operation({ ...long, run: checksum, input: ChecksumInput, output: ChecksumOutput }),
  'memory.read': operation({ ...long, run: read, input: ReadInput, output: ReadOutput }),
  'memory.write': operation({ ...long, run: write, input: WriteInput, output: WriteOutput }),
  'memory.defragment': operation({ ...long, run: defragment, input: DefragmentInput, output: DefragmentOutput }),
}
