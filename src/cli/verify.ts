/**
 * `darkroom verify`: a picture is drawn again from its own receipt, through the API, and the bytes are compared. Equal
 * bytes are promised where the exactness keys are equal; where they are not, it says what of the key is another. One of
 * the class `fast` promises none: it is drawn again and compared, and other bytes are no failure.
 */
import { readFile } from 'node:fs/promises'
import { sha256Of } from '../artifacts/store.ts'
import { textsOf } from '../artifacts/texts.ts'
import { Problem, type DarkroomClient, type Image, type ImageRequest } from '../client/index.ts'
import { onDisk } from '../disk.ts'
import { differenceOf, type Difference } from '../domains/postprocessing/compare.ts'
import { askedPostprocess } from '../domains/postprocessing/settings.ts'
import { askedOf, parseReceipt, type Receipt } from '../domains/postprocessing/texts/receipt.ts'
import { artifactError, DarkroomError } from '../errors.ts'
import { modelError } from '../models/errors.ts'
import { connectApi } from './connection.ts'
import { follow, type Output } from './sessions.ts'
import { Exit, inline, progressView, say, sayJson, silentView, whisper } from './terminal.ts'

/** Exit status of a picture that was drawn again and has other bytes. */
const differs = 3

interface Verdict extends Partial<Difference> {
  isSame: boolean
  /** Whether equal bytes are promised of such a picture at all. */
  isPromised: boolean
  session: string
  sha256: { file: string; again: string }
  exactnessKey: { file: string; again: string }
  /** Facts of the exactness keys that differ, by their place in the receipt. */
  facts: { name: string; file: unknown; again: unknown }[]
  /** Why the pixels in the file cannot be compared. */
  broken?: string
}

/**
 * @throws DarkroomError `artifact.untold` for a file without a receipt, `model.changed` where the model has another
 * body; Problem where the farm cannot draw it
 * @throws Exit 3 when it has other bytes
 */
export async function verify(file: string, { json, url, device }: Output & { device?: string }): Promise<void> {
  const bytes = await onDisk(file, readFile(file))
  const receipt = receiptOf(bytes)
  const client = await connectApi(url === undefined ? {} : { url })
  await checkModel(client, receipt)
  const where = device ?? (await deviceOf(client, receipt.exactness.key))
  const done = receipt.postprocess && { postprocess: receipt.postprocess.map(askedPostprocess) }
  const input = { ...askedOf(receipt.input), ...done, count: 1 } as ImageRequest
  const submitted = await client.generate(input, where === undefined ? {} : { device: where })
  if (!json) whisper(inline(`session ${submitted.id}`))
  const session = await follow(client, submitted.id, json ? silentView : progressView())
  if (session.status !== 'succeeded') throw Problem.ofSession(session)
  const [image] = (session.output?.images ?? []) as Image[]
  const again = await client.artifact(image?.sha256 ?? '')
  const verdict = await verdictOf(bytes, again, session.id)
  if (json) sayJson(verdict)
  else say(describe(verdict))
  if (!verdict.isSame && verdict.isPromised) throw new Exit(differs)
}

/** @throws DarkroomError `artifact.untold` */
function receiptOf(bytes: Uint8Array): Receipt {
  const { texts, unread } = textsOf(bytes)
  const text = texts.get('darkroom')
  const remedy = 'Name a PNG as Darkroom wrote it; `darkroom request FILE` shows what other texts say.'
  if (text === undefined)
    throw artifactError('untold', `the file has no receipt of Darkroom: ${unread.get('darkroom') ?? 'no text `darkroom`'}`, { remedy })
  try {
    const receipt = parseReceipt(text)
    if (receipt.workflow === 'image-generation@1') return receipt
    throw new Error(`it is of ${receipt.workflow}, and image-generation@1 alone is drawn again`)
  } catch (error) {
    throw artifactError('untold', `the receipt in the file cannot be used: ${(error as Error).message}`, { remedy })
  }
}

/** @throws Problem where there is none of that name; DarkroomError `model.changed` where it is another one */
async function checkModel(client: DarkroomClient, { input: { model } }: Receipt): Promise<void> {
  const { bodyHash } = await client.model(model.id)
  if (bodyHash === null || bodyHash === model.bodyHash) return
  throw modelError(
    'changed',
    `the picture was drawn with model ${model.id} of body hash ${model.bodyHash.slice(0, 10)}…, and the one here has ${bodyHash.slice(0, 10)}…`,
    { remedy: 'Put the model that it was drawn with into a model folder, and verify it again.' },
  )
}

/** A device whose worker has the key, so that the bytes are promised; undefined where none has. */
async function deviceOf(client: DarkroomClient, key: string): Promise<string | undefined> {
  return (await client.workers()).find(({ exactnessKey }) => exactnessKey === key)?.device.id
}

async function verdictOf(bytes: Uint8Array, again: Uint8Array, session: string): Promise<Verdict> {
  const [before, after] = [receiptOf(bytes), receiptOf(again)]
  const sha256 = { file: sha256Of(bytes), again: sha256Of(again) }
  const isPromised = before.input.class !== 'fast'
  const told = { session, isPromised, sha256, exactnessKey: { file: before.exactness.key, again: after.exactness.key } }
  if (sha256.file === sha256.again) return { isSame: true, ...told, facts: [] }
  const factsOf = ({ exactness, editor }: Receipt) => ({ ...exactness.facts, ...(editor !== undefined && { editor }) })
  const facts = factsThatDiffer(factsOf(before), factsOf(after))
  const difference = await differenceOf(bytes, again).catch((error: unknown) => {
    if (error instanceof DarkroomError) return { broken: error.message }
    throw error
  })
  return { isSame: false, ...told, facts, ...difference }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

function factsThatDiffer(file: unknown, again: unknown, name = ''): Verdict['facts'] {
  if (isObject(file) && isObject(again)) {
    const names = [...new Set([...Object.keys(file), ...Object.keys(again)])].toSorted()
    return names.flatMap((each) => factsThatDiffer(file[each], again[each], name === '' ? each : `${name}.${each}`))
  }
  return JSON.stringify(file) === JSON.stringify(again) ? [] : [{ name, file: file ?? null, again: again ?? null }]
}

export function describe({ isSame, isPromised, sha256, exactnessKey, facts, broken, pixels = 0, of = 0, texts = [] }: Verdict): string {
  const promise = isPromised
    ? []
    : ['it is of the class fast, which promises no bytes: this says how it came out, and nothing of its promise']
  if (isSame) return [`the same bytes: ${sha256.file}, exactness key ${exactnessKey.file}`, ...promise].map(inline).join('\n')
  const head = broken
    ? `differs: ${broken}`
    : pixels === 0
      ? `the same ${of} pixels, in a file of other bytes`
      : `differs: ${pixels} of ${of} pixels`
  const key =
    facts.length > 0
      ? [
          `its exactness key is ${exactnessKey.file}, and here it is ${exactnessKey.again}, so equal bytes are not promised:`,
          ...facts.map((fact) => `  ${fact.name}: ${JSON.stringify(fact.file)}, and here ${JSON.stringify(fact.again)}`),
        ]
      : [`the exactness key is the same, ${exactnessKey.file}${isPromised ? ': the file was changed, or a promise was broken' : ''}`]
  return [head, ...promise, ...key, ...(texts.length > 0 ? [`texts that differ: ${texts.join(', ')}`] : [])].map(inline).join('\n')
}
