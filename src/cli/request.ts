/** `darkroom request`: what a picture's own texts say of its request. Asks no farm. */
import { readFile } from 'node:fs/promises'
import { onDisk } from '../disk.ts'
import { requestOfFile } from '../workflows/picture-request.ts'
import { fields, say, sayJson } from './terminal.ts'

const words = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))

/** @throws DarkroomError `artifact.untold` where nothing in the file tells of a request; as `onDisk` */
export async function request(file: string, { json }: { json?: boolean }): Promise<void> {
  const found = requestOfFile(await onDisk(file, readFile(file)))
  if (json) return sayJson(found)
  const { source, input, modelHash, unread } = found
  const lines: [string, string][] = [
    ['from', source],
    ...Object.entries(input).map(([name, value]): [string, string] => [`  ${name}`, words(value)]),
    ...(modelHash === null ? [] : [['  model hash', modelHash] as [string, string]]),
  ]
  say(fields(lines, 20))
  if (unread.length > 0)
    say(
      `\nnot in the request:\n${fields(
        unread.map(({ name, value, why }) => [`  ${name}`, `${value}: ${why}`]),
        20,
      )}`,
    )
}
