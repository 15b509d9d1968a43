/** `darkroom analytics`: how postprocessing went of late. */
import { size } from './bars.ts'
import { connectApi } from './connection.ts'
import type { Output } from './sessions.ts'
import { inline, say, sayJson, table } from './terminal.ts'

export async function show({ json, url, days }: Output & { days?: number }): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const found = await client.pictureAnalytics(days)
  if (json) return sayJson(found)
  const { from, operations, policies, recommendations } = found
  if (operations.length === 0) return say(`nothing was postprocessed since ${from}`)
  const rows = operations.map(({ step, by, count, seconds, pixelsPerS, peakBytes }) => [
    inline(by === null ? step : `${step} ${by}`),
    String(count),
    `${(seconds / Math.max(1, count)).toFixed(2)} s`,
    (pixelsPerS / 1e6).toFixed(2),
    peakBytes === null ? '' : size(peakBytes),
  ])
  const lines = [`since ${from}`, table(['STEP', 'PICTURES', 'EACH', 'MEGAPIXELS/S', 'MEMORY'], rows)]
  if (policies.length > 0) {
    const verdicts = policies.map(({ policy, version, pictures, actions: { allow, flag, blur, block }, unchecked }) => [
      inline(`${policy}@${version}`),
      ...[pictures, allow, flag, blur, block, unchecked].map(String),
    ])
    lines.push('', table(['POLICY', 'PICTURES', 'ALLOW', 'FLAG', 'BLUR', 'BLOCK', 'UNCHECKED'], verdicts))
  }
  if (recommendations.length > 0) lines.push('', ...recommendations.map(({ figure, says }) => inline(`${figure}: ${says}`)))
  say(lines.join('\n'))
}
