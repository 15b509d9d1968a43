/** What the steps of diffusion share of a picture that comes in. */
import type { ImageRequest } from '../values.ts'

type WithPicture = Pick<ImageRequest, 'width' | 'height' | 'picture' | 'mask'>

/** The size of what comes out, pixels: a region that is drawn by itself goes back into its picture. */
export const sizeOf = ({ width, height, picture, mask }: WithPicture): { width: number; height: number } =>
  picture && mask?.area === 'masked' ? { width: picture.width, height: picture.height } : { width, height }

/** The files `picture` and `mask` of a request, as Python is given them. */
export const filesOfPicture = ({ picture, mask }: Pick<WithPicture, 'picture' | 'mask'>): Record<string, string> => ({
  ...(picture && { picture: picture.sha256 }),
  ...(typeof mask?.source === 'object' && 'sha256' in mask.source && { mask: mask.source.sha256 }),
})
