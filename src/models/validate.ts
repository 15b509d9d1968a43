/**
 * A look at every byte of a model: whether its files are what their headers say, whether its numbers are numbers, and
 * whether it is still what was hashed. Pickles are read as bytes, and never opened.
 */
import { Hasher, identityFiles, identityOf, pathOf, type FileHashes, type Floats, type Hashed, type Identity } from './hash.ts'
import { HeaderFault, quote, withFile } from './header.ts'
import { formatOf } from './inspect.ts'
import { readLayout, type Layout } from './safetensors.ts'
import type { Entry } from './entry.ts'
import { modelError } from './errors.ts'
import type { FileState } from './found.ts'
import type { Shelf } from './shelf.ts'
import type { Fault } from './verdict.ts'

/** What is wrong, at the place where it is. */
export interface Finding {
  /** Relative to the model's folder; '' for a model that is one file. */
  file: string
  /** The tensor, where one is meant; escaped. */
  tensor: string | null
  code: Fault | 'hash' | 'not_finite'
  message: string
}

/** Findings that do not keep a model from drawing: some models keep a mask of infinities among their weights. */
const harmless: ReadonlySet<Finding['code']> = new Set(['not_finite'])

export interface Validation {
  path: string
  isValid: boolean
  /** Bytes that were read. */
  bytes: number
  findings: Finding[]
  found: Identity
  /** The body hash that it had when it was hashed; null when it never was. */
  recordedHash: string | null
}

/** Most findings that are named; the rest are alike. */
export const maxFindings = 100

/**
 * Reads the files of a model whole, one after the other.
 * @param shelf knows the hashes of its files in this state, as they were found before
 * @param progress told how many bytes are done, of how many
 * @throws DarkroomError `model.unreadable` when a file cannot be read, or changes meanwhile; what `signal` aborts with
 */
export async function validate(
  entry: Entry,
  shelf: Pick<Shelf, 'hashesOf'>,
  progress: (done: number, total: number) => void,
  signal: AbortSignal,
): Promise<Validation> {
  const identity = identityFiles(entry)
  const isRead = new Set(identity.map((file) => pathOf(entry.path, file)))
  const weights = entry.files.filter((file) => {
    const path = pathOf(entry.path, file)
    return formatOf(path) !== undefined && !isRead.has(path)
  })
  const files = [...identity, ...weights]
  const known = await shelf.hashesOf(files.map((file) => ({ ...file, at: pathOf(entry.path, file) })))
  const total = files.reduce((sum, { size }) => sum + size, 0)
  const findings: Finding[] = verdictOf(entry)
  const hashes: FileHashes[] = []
  const hasher = new Hasher()
  const stop = (): void => void hasher.close()
  signal.addEventListener('abort', stop)
  try {
    let before = 0
    for (const [i, file] of files.entries()) {
      signal.throwIfAborted()
      const read = await readWhole(entry, file, hasher, (done) => progress(before + done, total))
      findings.push(...read.findings)
      hashes.push(read.hashes)
      const was = known[i]
      if (was && was.sha256 !== read.hashes.sha256) findings.push(another(file, was, read.hashes))
      before += file.size
      progress(before, total)
    }
  } catch (error) {
    signal.throwIfAborted()
    const why = error instanceof Error ? error.message : String(error)
    throw modelError('unreadable', `${entry.path} cannot be read: ${why}`, { field: 'input.model', cause: error })
  } finally {
    signal.removeEventListener('abort', stop)
    await hasher.close()
  }
  return {
    path: entry.path,
    isValid: findings.every(({ code }) => harmless.has(code)),
    bytes: total,
    findings,
    found: identityOf(entry.isFolder, identity, hashes.slice(0, identity.length)),
    recordedHash: entry.identity?.bodyHash ?? null,
  }
}

/** What the headers of all files together say. */
function verdictOf({ isFolder, verdict: { reason } }: Entry): Finding[] {
  // Of one file the look at its tensors says the same, tensor by tensor.
  if (!reason || sound.has(reason.code) || (!isFolder && ofTensors.has(reason.code))) return []
  return [{ file: '', tensor: null, code: reason.code, message: reason.message }]
}

/** What nobody has a rule for is sound all the same. */
const sound: ReadonlySet<Fault> = new Set<Fault>(['not_understood'])
const ofTensors: ReadonlySet<Fault> = new Set<Fault>([
  'empty',
  'layout',
  'incomplete',
  'trailing_bytes',
  'header_size',
  'header_syntax',
  'header_limits',
  'duplicate',
  'tensor',
])

async function readWhole(
  entry: Entry,
  file: FileState,
  hasher: Hasher,
  progress: (done: number) => void,
): Promise<{ hashes: FileHashes; findings: Finding[] }> {
  const path = pathOf(entry.path, file)
  // What is called safetensors and is something else has its verdict already.
  const code = entry.isFolder ? undefined : entry.verdict.reason?.code
  const isOther = code !== undefined && !ofTensors.has(code) && !sound.has(code)
  const layout = formatOf(path) === 'safetensors' && !isOther ? await layoutOf(pathOf(entry.real, file)) : undefined
  const findings = (layout?.faults ?? []).map(({ reason }): Finding => ({
    file: file.path,
    tensor: tensorIn(reason.field),
    code: reason.code,
    message: reason.message,
  }))
  const places = layout?.places && layout.faults.length === 0 ? floatsOf(layout) : []
  const read = await hasher.hash(path, progress, places, !layout?.places)
  return { hashes: read.hashes, findings: [...findings, ...oddOf(file, places, read)] }
}

/** `“name”.data_offsets` → `“name”`. */
const tensorIn = (field: string): string | null => /^“([^”]*)”/.exec(field)?.[1] ?? null

async function layoutOf(path: string): Promise<Layout | { faults: HeaderFault[]; places?: undefined }> {
  try {
    return await withFile(path, readLayout)
  } catch (error) {
    if (error instanceof HeaderFault) return { faults: [error] }
    throw error
  }
}

const floatsOf = ({ bodyFrom, tensors, places }: Layout): (Floats & { name: string })[] =>
  places.map(({ name, begin, end }) => ({ name, type: tensors.get(name)?.type ?? '', begin: bodyFrom + begin, end: bodyFrom + end }))

const oddOf = (file: FileState, places: readonly { name: string }[], { odd }: Hashed): Finding[] =>
  places.flatMap(({ name }, i) => {
    const count = odd[i] ?? 0
    if (count === 0) return []
    const message = `Tensor ${quote(name)} holds ${count === 1 ? 'one number that is' : `${count} numbers that are`} infinite or none.`
    return [{ file: file.path, tensor: quote(name).slice(1, -1), code: 'not_finite' as const, message }]
  })

function another(file: FileState, was: FileHashes, is: FileHashes): Finding {
  const what = was.body === is.body ? 'its header or metadata' : 'its bytes'
  const message = `${file.path === '' ? 'It' : file.path} had SHA-256 ${was.sha256.slice(0, 10)} and has ${is.sha256.slice(0, 10)}: ${what} changed, while size, time and inode did not.`
  return { file: file.path, tensor: null, code: 'hash', message }
}
