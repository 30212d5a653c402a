from horinsight.models.hornet import HorNet
from horinsight.models.hornet_isotropic import IsotropicHorNet
