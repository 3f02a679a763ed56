zephyr_library()
zephyr_library_sources(../melius.c ../kernels.c ../weights.c)
zephyr_include_directories(..)
