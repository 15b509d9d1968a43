/** In which order items begin. `spread`: from everywhere, so that the first ones show how all of it will be. */
export const itemOrders = ['listed', 'reversed', 'spread'] as const
export type ItemOrder = (typeof itemOrders)[number]
