/** `darkroom enhance | convert | faces | check`: pictures that are made of others, and what policies say of one. */
import { extname } from 'node:path'
import type { CommandInput, CommandOutput } from '../client/index.ts'
import { formats, qualities, type Format, type Measures, type Quality } from '../domains/postprocessing/settings.ts'
import { invalidFields } from '../errors.ts'
import { connectApi } from './connection.ts'
import { savePictures, uploaded } from './pictures.ts'
import { watched, type Output } from './sessions.ts'
import { Exit, fields, inline, say, sayJson, table } from './terminal.ts'
import { size } from './bars.ts'

interface Saved extends Output {
  out?: string
}

type Enhance = CommandInput<'image-enhance'>
type Convert = CommandInput<'image-convert'>

/** @throws Problem; DarkroomError as `onDisk`, `artifact.corrupt` */
export async function enhance(
  file: string,
  { grain, grainSeed, ...options }: Saved & Omit<Enhance, 'picture' | 'grain'> & { grain?: number; grainSeed?: number },
): Promise<void> {
  if (grain === undefined && grainSeed !== undefined)
    throw invalidFields([{ field: 'grainSeed', message: 'is said of grain, and there is none: add --grain' }])
  const { before, after } = await made('image-enhance', file, {
    ...options,
    ...(grain !== undefined && { grain: { strength: grain, ...(grainSeed !== undefined && { seed: grainSeed }) } }),
  })
  if (options.json) return
  const figures = ({ sharpness, noise, clipping: { dark, light } }: Measures): string =>
    `sharpness ${sharpness.toFixed(2)}, noise ${noise.toFixed(2)}, clipped ${(100 * (dark + light)).toFixed(1)} %`
  say(`before: ${figures(before)}`)
  say(`after:  ${figures(after)}`)
}

/** @throws Problem; DarkroomError `api.invalid` where no format is said, as `onDisk`, `artifact.corrupt` */
export async function convert(
  file: string,
  { format, quality, ...options }: Saved & Omit<Convert, 'picture' | 'format' | 'quality'> & { format?: Format; quality?: string },
): Promise<void> {
  const { quality: found, images } = await made('image-convert', file, {
    ...options,
    format: format ?? formatOf(options.out),
    ...(quality !== undefined && { quality: isNamed(quality) ? quality : Number(quality) }),
  })
  if (!options.json) say(`${size(images[0]?.bytes ?? 0)}${found === null ? '' : `, quality ${found}`}`)
}

/** @throws Problem; DarkroomError as `onDisk`, `artifact.corrupt` */
export async function faces(file: string, options: Saved & Omit<CommandInput<'image-faces'>, 'picture'>): Promise<void> {
  const { faces: count } = await made('image-faces', file, options)
  if (!options.json) say(`${count} ${count === 1 ? 'face' : 'faces'}`)
}

/** Exit status of a picture that would not pass as it is. */
const keptBack = 3

/** @throws Problem; DarkroomError as `onDisk`, `artifact.corrupt`; Exit 3 where it would be blurred or blocked */
export async function check(
  file: string,
  { json, url, policy, policyVersion: version, prompt }: Output & { policy?: string; policyVersion?: number; prompt?: string },
): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const picture = await uploaded(client, file)
  const said = {
    ...(policy !== undefined && { policy }),
    ...(version !== undefined && { version }),
    ...(prompt !== undefined && { prompt }),
  }
  const found = await watched({ ...(json && { json }) }, (options) => client.run('image-check', { picture, ...said }, options))
  if (json) sayJson(found)
  else {
    const rows: [string, string][] = [
      ['verdict', `${found.action}${found.rule === null ? '' : `, by ${found.rule}`}`],
      ['policy', `${found.policy.name}, version ${found.policy.version}`],
      ...(found.passes === null ? [] : [['passes with', found.passes] as [string, string]]),
      ...(found.unchecked === undefined ? [] : [['unchecked', found.unchecked] as [string, string]]),
    ]
    say(fields(rows, 13))
    const scores = Object.entries(found.scores).toSorted(([, a], [, b]) => b.score - a.score)
    if (scores.length > 0)
      say(
        table(
          ['CATEGORY', 'SCORE', 'BY'],
          scores.map(([category, { score, by }]) => [inline(category), score.toFixed(4), inline(by)]),
        ),
      )
  }
  if (found.action === 'blur' || found.action === 'block') throw new Exit(keptBack)
}

const isNamed = (quality: string): quality is Quality => (qualities as readonly string[]).includes(quality)

/** @throws DarkroomError `api.invalid` */
function formatOf(out = ''): Format {
  const ending = extname(out).slice(1).toLowerCase().replace('jpg', 'jpeg')
  const format = formats.find((each) => each === ending)
  if (format) return format
  throw invalidFields([{ field: 'format', message: `is missing: say --format, or --out with an ending: ${formats.join(', ')}` }])
}

/** Runs one of them, and saves what came of it. */
async function made<Name extends 'image-enhance' | 'image-convert' | 'image-faces'>(
  name: Name,
  file: string,
  { json, url, out, ...said }: Saved & Omit<CommandInput<Name>, 'picture'>,
): Promise<CommandOutput<Name>> {
  const client = await connectApi(url === undefined ? {} : { url })
  const picture = await uploaded(client, file)
  const output = await watched({ ...(json && { json }) }, (options) =>
    client.run(name, { ...said, picture } as unknown as CommandInput<Name>, options),
  )
  const files = await savePictures(client, { output }, out)
  if (json) sayJson({ ...output, files })
  else for (const path of files) say(`saved ${path}`)
  return output
}
