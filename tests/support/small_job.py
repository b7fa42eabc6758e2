"""The real job process with a single recipe, so that a test takes seconds."""

from wavegate_server.compress.job_program import main
from wavegate_server.core.compress import recipes

if __name__ == "__main__":
    recipes.RECIPES = (recipes.named("int8-dynamic-per-channel"),)
    main()
