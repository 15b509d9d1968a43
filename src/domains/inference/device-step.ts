/** What the steps of diffusion share. */
import { workerError } from '../../errors.ts'
import type { PythonResult } from '../operation.ts'
import type { WantedModel } from '../values.ts'

/** A step on the device that needs its model there. */
export const onDevice = { lane: 'gpu', attempts: 3, needs: ({ model }: { model: WantedModel }) => ({ models: [model] }) } as const

/** SHA-256 of a file that the child made. @throws DarkroomError `worker.protocol` when it made none of that name */
export function fileOf(result: PythonResult, name: string): string {
  const sha256 = result.files[name]
  if (sha256 === undefined) throw workerError('protocol', `the Python child answered without the file ${name}`)
  return sha256
}
