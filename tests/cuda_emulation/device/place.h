// Shared by the driver and the kernels: where a thread is, and how it waits for others.
#pragma once
struct EmuIndex { unsigned x, y, z; };
struct EmuPlace { EmuIndex thread, block, block_dim, grid_dim; void (*meet)(int whole_block); };
