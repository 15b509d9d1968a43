/** `--dry-run`: what would come of a submission, in words. */
import type { DarkroomClient, DryRun, Submission } from '../client/index.ts'
import { duration } from './progress.ts'
import { fields, inline, say, sayJson, table } from './terminal.ts'

/** Asks what would come of it, and prints that. @throws Problem what a submit would be refused with */
export async function dryRun(client: DarkroomClient, submission: Submission, json = false): Promise<void> {
  const found = await client.dryRun(submission)
  if (json) return sayJson(found)
  describe(found)
}

function describe({ workflow, input, items, needs, devices, place, nowhere, seconds }: DryRun): void {
  const lines: [string, string][] = [
    ['workflow', workflow],
    ...Object.entries(input).map(([name, value]): [string, string] => [
      `  ${name}`,
      typeof value === 'string' ? value : JSON.stringify(value),
    ]),
    ...(items === null ? [] : [['items', String(items)] as [string, string]]),
    ['runs on', needs.lanes.join(', ')],
    ...needs.models.map(({ id, kind }): [string, string] => [kind ?? 'model', id]),
    ...(seconds ? [['takes about', `${duration(seconds.value)} (${seconds.basis})`] as [string, string]] : []),
  ]
  say(fields(lines, 14))
  if (devices.length > 0) {
    const rows = devices.map(({ device, runs, why, paused, picture }) => [
      inline(device),
      runs ? (paused ? 'paused' : 'yes') : 'no',
      picture?.seconds ? duration(picture.seconds.value) : '',
      picture ? `${(picture.peakBytes.value / 2 ** 20).toFixed(0)} MiB` : '',
      inline(why ?? ''),
    ])
    say(`\n${table(['DEVICE', 'RUNS', 'TAKES', 'MEMORY', 'WHY NOT'], rows)}`)
  }
  if (nowhere !== null) return say(inline(`\nnowhere now: ${nowhere}`))
  if (!place) return
  const starts =
    place.startsInS === null ? '' : place.startsInS === 0 ? ', begins at once' : `, begins in about ${duration(place.startsInS)}`
  say(inline(`\nplace ${place.position} in ${place.queue}${starts}${place.why === null ? '' : `: ${place.why}`}`))
}
