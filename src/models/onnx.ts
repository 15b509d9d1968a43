/**
 * Graphs of ONNX, `model.onnx`, each beside a manifest, which says what no graph does: of a classifier the labels of
 * its outputs in their order, and how they become scores; of a detector of faces which one it is. No graph is opened
 * here.
 */
import { z } from 'zod'
import { HeaderFault, withFile } from './header.ts'
import type { Json } from './json-file.ts'
import { blank, type Verdict } from './verdict.ts'

/** Whose presence tells what a folder is. */
export const manifests = { classifier: 'classifier.json', 'face-detector': 'detector.json' } as const
type Manifested = keyof typeof manifests
/** What a folder with these names holds. */
export const manifestedBy = (has: (name: string) => boolean): Manifested | undefined =>
  (Object.keys(manifests) as Manifested[]).find((kind) => has(manifests[kind]))

export const graphName = 'model.onnx'

const Label = z.string().min(1).max(200)
/** `scores`: what makes scores of its outputs; `layout`: of the picture that goes in. Python reads the same file. */
const Classifier = z.strictObject({
  labels: z.array(Label).min(1).max(10_000),
  scores: z.enum(['softmax', 'sigmoid', 'none']),
  layout: z.enum(['nchw', 'nhwc']).optional(),
  input: Label.optional(),
  output: Label.optional(),
})

/** The one whose outputs are understood: YuNet as OpenCV's zoo has it since 2023. */
const Detector = z.strictObject({ detector: z.literal('yunet') })
const forms = { classifier: Classifier, 'face-detector': Detector }

/**
 * @param path of the graph, undefined where a link leads out of the model's folder
 * @throws HeaderFault `config` for a manifest that is none; for a graph that is not there, empty or a pointer
 */
export async function onnxModel(kind: Manifested, manifest: Json, path: string | undefined): Promise<Verdict> {
  const name = manifests[kind]
  const parsed = forms[kind].safeParse(manifest)
  if (!parsed.success) {
    const [{ path: at, message } = { path: [], message: '' }] = parsed.error.issues
    throw new HeaderFault('config', name, `${name}: ${at.join('.') || 'all of it'}: ${message}.`)
  }
  if (path === undefined) throw new HeaderFault('weights_missing', graphName, `${name} stands without ${graphName}.`)
  const { size, head } = await withFile(path, async (file) => ({ size: file.size, head: (await file.read(0, 20)).toString('latin1') }))
  if (size === 0) throw new HeaderFault('empty', graphName, `${graphName} is empty.`)
  if (head.startsWith('version https://git-')) throw new HeaderFault('lfs_pointer', graphName, `${graphName} is a pointer of git-lfs.`)
  if (/^\s*<(?:!|html)/i.test(head)) throw new HeaderFault('web_page', graphName, `${graphName} is a page of the web.`)
  const figures = 'labels' in parsed.data ? { labels: parsed.data.labels.length } : {}
  return {
    ...blank('onnx'),
    kind,
    figures,
    components: [{ name: kind, kind, at: '', parameters: 0, bytes: size, files: { '': [graphName] } }],
  }
}
