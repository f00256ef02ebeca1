"""Statistics of a dataset: counts, distributions, duplicates and anomalies, in one pass.

from sa1b_tfds.stats import statistics_of
print(statistics_of("tars").as_dict())
"""

from sa1b_tfds.stats.collect import StatisticsProgress, statistics_of, statistics_of_examples
from sa1b_tfds.stats.statistics import Statistics

__all__ = ["Statistics", "StatisticsProgress", "statistics_of", "statistics_of_examples"]
