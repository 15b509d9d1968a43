/**
 * Networks that see in a picture what ControlNets are shown. Tensors do not tell what a head means, so the class that
 * `config.json` names decides; `python/darkroom/preprocessors.py` loads the same classes.
 */
import { numberIn, type Json } from '../json-file.ts'
import { reasonOf, type PreprocessorTask, type Reason, type Verdict } from '../verdict.ts'

/** By the class of transformers. */
export const preprocessorClasses: Readonly<Record<string, { architecture: string; task: PreprocessorTask }>> = {
  DPTForDepthEstimation: { architecture: 'dpt', task: 'depth' },
  DepthAnythingForDepthEstimation: { architecture: 'depth-anything', task: 'depth' },
  SegformerForSemanticSegmentation: { architecture: 'segformer', task: 'segment' },
  UperNetForSemanticSegmentation: { architecture: 'upernet', task: 'segment' },
}

/** What ControlNets of segmentation are drawn in has a colour for each of these. */
const labelsOfAde20k = 150

type Said = Pick<Verdict, 'kind' | 'figures'> & Partial<Pick<Verdict, 'architecture' | 'task' | 'reason'>>

/** What a folder of that class is; `config`: its `config.json`. */
export function preprocessorOf(className: string, config: Json): Said {
  const known = Object.hasOwn(preprocessorClasses, className) ? preprocessorClasses[className] : undefined
  if (!known) return { kind: 'preprocessor', figures: {}, reason: refused(`Its class ${className} is none of ${classes()}.`) }
  if (known.task !== 'segment') return { kind: 'preprocessor', ...known, figures: {} }
  const labels = labelsOf(config)
  const lacks = `It knows ${labels} labels; ControlNets are shown the colours of ADE20K’s ${labelsOfAde20k}: take one that was trained on it, of ${classes()}.`
  return { kind: 'preprocessor', ...known, figures: { labels }, ...(labels !== labelsOfAde20k && { reason: refused(lacks) }) }
}

const classes = (): string => Object.keys(preprocessorClasses).join(', ')
const refused = (message: string): Reason => reasonOf('architecture', 'config.json', message)

/** As transformers counts them: 2 where a configuration names none. */
function labelsOf(config: Json): number {
  const names = Object.hasOwn(config, 'id2label') ? config['id2label'] : undefined
  return typeof names === 'object' && names !== null ? Object.keys(names).length : (numberIn(config, 'num_labels') ?? 2)
}
