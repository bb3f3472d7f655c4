# find_package(SutraEmbed): targets sutra::client (shared) and sutra::client_static. Nothing else is needed.
include("${CMAKE_CURRENT_LIST_DIR}/SutraEmbedTargets.cmake")
